//! The harness' own tests: both stacks start, and what is written is read back.

use std::time::Duration;

use crate::children::{Guarded, Signal, ended_by};
use crate::docker::docker;
use crate::kafka::{Kafka, KafkaOptions};
use crate::postgres::{Postgres, Stop};
use crate::proxy::{Flow, Framing, Proxy};
use crate::stack::{Choice, Home, Stack, StackKind};
use crate::topics::{self, Record};
use crate::wait::{self, Seen};

async fn start(kind: StackKind) -> Stack {
    let choice = Choice {
        kind,
        reason: "a test of the harness".to_owned(),
    };
    Stack::start_chosen(
        choice,
        &format!("harness-{}", kind.name()),
        &KafkaOptions::default().for_broker_faults(),
        &[],
    )
    .await
    .unwrap()
}

/// Writes and reads through the stack's own brokers and a database of its template.
async fn writes_and_reads(stack: &Stack) {
    let topic = stack.topic("written", 3, &[]).await.unwrap();
    let mut records: Vec<_> = (0..100)
        .map(|n| Record::new(format!("key-{}", n % 7), format!("value-{n}")))
        .collect();
    records[5].value = None;
    records[6].key = None;
    records[7].headers = vec![("a".to_owned(), Some(b"1".to_vec())), ("b".to_owned(), None)];
    records[8].timestamp = Some(1_700_000_000_000);
    records[8].partition = Some(2);
    let places = topics::produce(&stack.brokers(), &topic, records.clone())
        .await
        .unwrap();
    let reads = topics::read_all(&stack.brokers(), &topic).await.unwrap();
    assert_eq!(reads.len(), 100);
    for (record, place) in records.iter().zip(places) {
        let read = reads
            .iter()
            .find(|read| (read.partition, read.offset) == place)
            .unwrap();
        assert_eq!(
            (&read.key, &read.value, &read.headers),
            (&record.key, &record.value, &record.headers)
        );
    }
    let committed = topics::committed(&stack.brokers(), "nobody", &topic).await.unwrap();
    assert_eq!(committed.iter().map(|partition| partition.high).sum::<i64>(), 100);
    assert!(committed.iter().all(|partition| partition.offset.is_none()));

    let (first, second) = (
        stack.database("first").await.unwrap(),
        stack.database("second").await.unwrap(),
    );
    let mut connection = first.connect().await.unwrap();
    sqlx::query("insert into consumers (name) values ('x')")
        .execute(&mut connection)
        .await
        .unwrap();
    let mut other = second.connect().await.unwrap();
    let others: i64 = sqlx::query_scalar("select count(*) from consumers")
        .fetch_one(&mut other)
        .await
        .unwrap();
    assert_eq!(others, 0);
}

#[tokio::test]
async fn the_embedded_stack_writes_and_reads() {
    writes_and_reads(&start(StackKind::Embedded).await).await;
}

/// Why this machine cannot run Kafka there, if so.
fn lacks_kafka(home: Home) -> Option<&'static str> {
    match home {
        Home::Processes if !Kafka::jars().is_dir() => Some("Kafka's jars are not fetched (`.ci/install kafka`)"),
        Home::Processes | Home::Containers => None,
    }
}

#[tokio::test]
async fn the_kafka_stack_writes_and_reads_also_after_its_node_was_killed() {
    if let Some(reason) = lacks_kafka(Home::Processes) {
        eprintln!("SKIPPED: {reason}");
        return;
    }
    a_stack_writes_and_reads_also_after_its_node_was_killed(StackKind::Kafka).await;
}

#[tokio::test]
async fn the_containers_stack_writes_and_reads_also_after_its_node_was_killed() {
    if Home::from_environment().unwrap() != Home::Containers {
        eprintln!("SKIPPED: containers are started on STACK=containers only");
        return;
    }
    a_stack_writes_and_reads_also_after_its_node_was_killed(StackKind::Containers).await;
}

async fn a_stack_writes_and_reads_also_after_its_node_was_killed(kind: StackKind) {
    let stack = &start(kind).await;
    writes_and_reads(stack).await;

    let topic = stack
        .topic("survives", 1, &[("max.message.bytes", "2000")])
        .await
        .unwrap();
    topics::produce(&stack.brokers(), &topic, vec![Record::new("k", "before")])
        .await
        .unwrap();
    let node = &stack.kafka().unwrap().nodes()[0];
    node.kill().await.unwrap();
    node.start().await.unwrap();
    topics::produce(&stack.brokers(), &topic, vec![Record::new("k", "after")])
        .await
        .unwrap();
    assert_eq!(topics::read_all(&stack.brokers(), &topic).await.unwrap().len(), 2);
    let refused = topics::produce(&stack.brokers(), &topic, vec![Record::new("k", vec![b'x'; 3000])]).await;
    assert!(refused.is_err_and(|error| format!("{error:#}").contains("too large")));

    swallowed_answers_make_no_duplicates(stack).await;
    held_frames_arrive_after_their_producer_is_gone(stack).await;
}

async fn swallowed_answers_make_no_duplicates(stack: &Stack) {
    let topic = stack.topic("swallowed", 1, &[]).await.unwrap();
    let route = stack.kafka().unwrap().route().unwrap();
    let proxy = Proxy::for_kafka(&route).unwrap();
    proxy.swallow_each_produce_answer(2);
    let records = (0..5).map(|n| Record::new("k", format!("{n}"))).collect();
    topics::produce(&proxy.address(), &topic, records).await.unwrap();
    topics::produce(&proxy.address(), &topic, vec![Record::new("k", "5")])
        .await
        .unwrap();
    assert_eq!(proxy.swallowed(), 1);
    let values: Vec<_> = topics::read_all(&stack.brokers(), &topic)
        .await
        .unwrap()
        .into_iter()
        .filter_map(|read| read.value)
        .collect();
    assert_eq!(
        values,
        ["0", "1", "2", "3", "4", "5"].map(|text| text.as_bytes().to_vec())
    );
}

async fn held_frames_arrive_after_their_producer_is_gone(stack: &Stack) {
    let topic = stack.topic("held", 1, &[]).await.unwrap();
    let route = stack.kafka().unwrap().route().unwrap();
    let proxy = Proxy::for_kafka(&route).unwrap();
    proxy.hold_produce(true);
    let address = proxy.address();
    let (old_topic, old_address) = (topic.clone(), address.clone());
    let old =
        tokio::spawn(async move { topics::produce(&old_address, &old_topic, vec![Record::new("k", "old")]).await });
    wait::until("a frame to be held", Duration::from_secs(10), || async {
        Ok(Seen::when(proxy.held(), |held| *held > 0))
    })
    .await
    .unwrap();
    proxy.hold_produce(false);
    proxy.cut(); // the old producer's connection; its frame stays in the network
    proxy.release_held();
    let values = wait::until("the old frame to be written", Duration::from_secs(10), || async {
        let reads = topics::read_all(&stack.brokers(), &topic).await?;
        Ok(Seen::when(reads.len(), |count| *count == 1))
    });
    assert_eq!(values.await.unwrap(), 1);
    old.await.unwrap().unwrap();
    let count = topics::read_all(&stack.brokers(), &topic).await.unwrap().len();
    assert_eq!(count, 1, "the broker knows the resend by its sequence");
}

#[tokio::test]
async fn a_crash_of_postgres_takes_back_nothing_that_was_waited_for() {
    let server = Postgres::start_new("harness-crash", &[]).await.unwrap();
    let mut connection = crate::postgres::connect(&server.url("postgres")).await.unwrap();
    sqlx::query("create table t (n int)")
        .execute(&mut connection)
        .await
        .unwrap();
    for how in [Stop::Fast, Stop::Crash, Stop::Kill] {
        let mut connection = crate::postgres::connect(&server.url("postgres")).await.unwrap();
        sqlx::query("insert into t values (1)")
            .execute(&mut connection)
            .await
            .unwrap();
        server.restart(how).await.unwrap();
    }
    let mut connection = crate::postgres::connect(&server.url("postgres")).await.unwrap();
    let count: i64 = sqlx::query_scalar("select count(*) from t")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(count, 3);
    assert_eq!(server.terminate_sessions("harness").await.unwrap(), 1);
}

#[tokio::test]
async fn a_stalled_proxy_lets_everything_through_afterwards() {
    let server = Postgres::start_new("harness-proxy", &[]).await.unwrap();
    let proxy = Proxy::to(server.port(), Framing::Raw).unwrap();
    let url = format!("postgres://postgres@{}/postgres", proxy.address());
    let mut connection = crate::postgres::connect(&url).await.unwrap();
    proxy.both(Flow::Stall);
    let query = async {
        let one: i32 = sqlx::query_scalar("select 1").fetch_one(&mut connection).await.unwrap();
        one
    };
    let thaw = async {
        let early = tokio::time::timeout(Duration::from_millis(200), std::future::pending::<()>()).await;
        assert!(early.is_err());
        proxy.both(Flow::Pass);
    };
    assert_eq!(tokio::join!(query, thaw).0, 1);
    proxy.cut();
    assert!(sqlx::query("select 1").execute(&mut connection).await.is_err());
}

#[tokio::test]
async fn a_child_is_frozen_thawed_and_killed() {
    let mut command = std::process::Command::new("sleep");
    command.arg("60");
    let child = Guarded::spawn("sleep", command, Signal::Kill).unwrap();
    child.signal(Signal::Freeze).unwrap();
    child.signal(Signal::Thaw).unwrap();
    assert!(
        child
            .wait(Duration::from_millis(20))
            .await
            .is_err_and(|error| error.to_string().contains("still runs"))
    );
    let status = child.kill().unwrap();
    assert!(ended_by(status, Signal::Kill));
}

/// Where the played test says which processes, folders and containers it has.
const PLAYED: &str = "CLAIMFIRST_HARNESS_PLAYED";

/// Started by the test below as a process of its own, which is then killed.
#[tokio::test]
async fn plays_a_test_that_is_killed() {
    let Some(file) = std::env::var_os(PLAYED) else {
        return;
    };
    let server = Postgres::start_new("harness-played", &[]).await.unwrap();
    let mut connection = crate::postgres::connect(&server.url("postgres")).await.unwrap();
    let folder: String = sqlx::query_scalar("show data_directory")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    // Frozen, as a scenario may leave a process behind: its end must come all the same.
    let mut command = std::process::Command::new("sleep");
    command.arg("60");
    let sleeper = Guarded::spawn("sleep", command, Signal::Kill).unwrap();
    sleeper.signal(Signal::Freeze).unwrap();
    std::fs::write(file, format!("{} {} {folder}", sleeper.pid(), crate::docker::run::id())).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_test_takes_its_servers_and_their_folders_with_it() {
    let file = crate::folders::logs().unwrap().join("played");
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "tests::plays_a_test_that_is_killed"])
        .env(PLAYED, &file);
    let test = Guarded::spawn("a test", command, Signal::Kill).unwrap();
    let said = wait::until("the played test to run", Duration::from_secs(60), || async {
        let text = std::fs::read_to_string(&file)?;
        Ok(Seen::when(text, |text| text.contains('/')))
    })
    .await
    .unwrap();
    let [sleeper, run, folder] = said.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("it said {said:?}")
    };
    let (sleeper, label) = (
        format!("/proc/{sleeper}"),
        format!("label={}={run}", crate::docker::run::LABEL),
    );
    let containers = async || match Home::from_environment()? {
        Home::Processes => Ok(String::new()),
        Home::Containers => docker(&["ps", "--all", "--quiet", "--filter", &label]).await,
    };
    let has_containers = Home::from_environment().unwrap() == Home::Containers;
    assert_eq!(!containers().await.unwrap().is_empty(), has_containers);
    test.kill().unwrap();
    wait::until(
        "its processes, folders and containers to be gone",
        Duration::from_secs(30),
        || async {
            let left = [&*sleeper, folder].map(|path| std::path::Path::new(path).exists());
            let left = (left, containers().await?);
            Ok(Seen::when(left, |(left, containers)| {
                *left == [false, false] && containers.is_empty()
            }))
        },
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_broker_that_had_no_processor_for_a_while_still_takes_topics() {
    if let Some(reason) = lacks_kafka(Home::from_environment().unwrap()) {
        eprintln!("SKIPPED: {reason}");
        return;
    }
    let options = KafkaOptions {
        routes: 0,
        ..KafkaOptions::default()
    };
    let kafka = Kafka::start_new("harness-stalled", &options).await.unwrap();
    let node = &kafka.nodes()[0];
    for name in ["stalled-1", "stalled-2"] {
        node.freeze().await.unwrap();
        tokio::time::sleep(Duration::from_secs(8)).await;
        node.thaw().await.unwrap();
        topics::create(&kafka.bootstrap(), name, 1, 1, &[]).await.unwrap();
    }
    // Whether a topic comes in the moment without a broker is chance; that there was such a moment is not.
    let log = std::fs::read_to_string(node.log()).unwrap();
    assert!(!log.contains("its session has timed out"), "the broker was fenced");
}

#[tokio::test]
async fn three_nodes_outlive_one_of_them() {
    if let Some(reason) = lacks_kafka(Home::from_environment().unwrap()) {
        eprintln!("SKIPPED: {reason}");
        return;
    }
    let options = KafkaOptions {
        nodes: 3,
        routes: 1,
        ..KafkaOptions::default()
    }
    .for_broker_faults();
    let kafka = Kafka::start_new("harness-three", &options).await.unwrap();
    let settings = [("min.insync.replicas", "2")];
    topics::create(&kafka.bootstrap(), "three", 3, 3, &settings)
        .await
        .unwrap();
    kafka.nodes()[0].kill().await.unwrap();
    let records = (0..30).map(|n| Record::new(format!("{n}"), "v")).collect();
    topics::produce(&kafka.bootstrap(), "three", records).await.unwrap();
    kafka.nodes()[0].start().await.unwrap();
    assert_eq!(topics::read_all(&kafka.bootstrap(), "three").await.unwrap().len(), 30);
}
