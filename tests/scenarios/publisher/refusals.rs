//! What the broker refuses: a record, a batch, a whole topic.

use std::sync::Arc;
use std::time::Duration;

use harness::proxy::{Flow, Proxy};
use harness::topics;
use harness::wait::{self, Seen};
use outbox_publisher::config::Config;
use outbox_publisher::domain::rules::{Rule, Rules};
use outbox_publisher::driver::{Bounds, Driver, DriverError, Observer};
use outbox_publisher::kafka::KafkaBroker;
use outbox_publisher::postgres::PostgresStore;
use outbox_publisher::relay::Relay;
use shared::outbox::NewEvent;
use shared::postgres::Session;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::publisher::{Load, Outbox, SOON, cpu_of, event, ids_on, until_readiness};

/// Over the limit of a small topic, under that of the client.
pub(crate) const LARGE: usize = 6_000;
pub(crate) const SMALL_LIMIT: &[(&str, &str)] = &[("max.message.bytes", "4000")];
const USUAL_LIMIT: &[(&str, &str)] = &[("max.message.bytes", "1048588")];

/// A publisher inside this process, whose rules can be switched off.
struct InProcess {
    driving: JoinHandle<Result<(), DriverError>>,
    stop: CancellationToken,
}

struct Unobserved;

impl Observer for Unobserved {
    fn turn(&mut self, _: &mut Relay, _: Duration) {}
    fn store(&mut self, _: Result<(), &str>) {}
    fn broker(&mut self, _: Result<(), &str>) {}
}

impl InProcess {
    fn start(outbox: &Outbox<'_>, brokers: &str, rules: Rules) -> anyhow::Result<Self> {
        // A record a batch, as many in flight as there may be: what a quiet stream looks like.
        let settings = [
            ("OUTBOX__KAFKA__BROKERS", brokers),
            ("OUTBOX__DATABASE__URL", &outbox.database.url),
            ("OUTBOX__KAFKA__PROPERTIES__LINGER_MS", "0"),
            ("OUTBOX__KAFKA__PROPERTIES__BATCH_NUM_MESSAGES", "1"),
            ("OUTBOX__RETRY__TOPIC_PAUSE_INITIAL_MS", "100"),
            ("OUTBOX__RETRY__TOPIC_PAUSE_MAX_MS", "500"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = shared::config::load_from::<Config>(None, settings)?.settings;
        let options = shared::postgres::connect_options(&config.database, "in-process")?;
        let instance = Uuid::now_v7();
        let session = Session::new(&config.database);
        let store = Arc::new(PostgresStore::new(
            &options,
            session,
            Duration::from_secs(5),
            instance,
            "in-process".to_owned(),
        ));
        let (told, facts) = mpsc::unbounded_channel();
        let broker = KafkaBroker::new(&config.kafka, told)?;
        let bounds = Bounds {
            statement: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        };
        let relay = Relay::new(config.relay(), rules, 1);
        let driver = Driver::new(relay, store, broker, Unobserved, facts, Arc::new(Notify::new()), bounds);
        let stop = CancellationToken::new();
        Ok(Self {
            driving: tokio::spawn(driver.run(stop.clone())),
            stop,
        })
    }

    async fn end(self) -> anyhow::Result<()> {
        self.stop.cancel();
        Ok(self.driving.await??)
    }
}

/// The first batch of a partition is refused, with small ones of its key behind it, while answers take
/// long. Returns the texts of the topic in the end.
async fn refuse_first_batch(outbox: &Outbox<'_>, topic: &str, rules: Rules) -> anyhow::Result<Vec<String>> {
    let kafka = outbox.stack.kafka().expect("asked for");
    let route = kafka.route()?;
    let proxy = Proxy::for_kafka(&route)?;
    let publisher = InProcess::start(outbox, &proxy.address(), rules)?;
    // The publisher learns of the topic by a record of another partition: of five, "21" has the first,
    // "foobar" the second.
    outbox.write(&[event(topic, "21", "known")]).await?;
    outbox.until_statuses(&[("PUBLISHED", 1)]).await?;
    topics::alter(&outbox.brokers, topic, SMALL_LIMIT).await?;
    until_refused(outbox, topic).await?;

    proxy.to_client(Flow::Delay(Duration::from_millis(150)));
    let large = NewEvent::new(topic, "test.happened", noise(LARGE)).key("foobar");
    let behind = (1..=4).map(|n| event(topic, "foobar", &n.to_string()));
    outbox
        .write(&std::iter::once(large).chain(behind).collect::<Vec<_>>())
        .await?;
    tokio::time::sleep(Duration::from_secs(2)).await; // whatever slips through has done so by then
    topics::alter(&outbox.brokers, topic, USUAL_LIMIT).await?;
    proxy.to_client(Flow::Pass);
    outbox.until_statuses(&[("PUBLISHED", 6)]).await?;
    publisher.end().await?;

    let mut seen = std::collections::HashSet::new();
    let reads = topics::read_all(&outbox.brokers, topic).await?;
    let firsts = reads.iter().filter(|read| {
        read.key.as_deref() == Some(b"foobar") && seen.insert(read.header("event-id").map(str::to_owned))
    });
    Ok(firsts
        .map(|read| match read.value.as_deref() {
            Some(value) if value.len() == LARGE => "large".to_owned(),
            value => String::from_utf8_lossy(value.unwrap_or_default()).into_owned(),
        })
        .collect())
}

/// Bytes that no compression makes small.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    (0..len.div_ceil(16))
        .flat_map(|_| Uuid::new_v4().into_bytes())
        .take(len)
        .collect()
}

/// A changed limit reaches the broker's log a moment after it is answered for.
async fn until_refused(outbox: &Outbox<'_>, topic: &str) -> anyhow::Result<()> {
    let record = || harness::Record {
        partition: Some(0),
        ..harness::Record::new("probe", noise(LARGE))
    };
    wait::until("the lowered limit to be in force", SOON, || async {
        let refused = topics::produce(&outbox.brokers, topic, vec![record()]).await.is_err();
        Ok(Seen::when(refused, |refused| *refused))
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_behind_a_producers_refused_first_batch() -> anyhow::Result<()> {
    let outbox = Outbox::shared("first_alone").await?;
    let topic = outbox.topic("first-alone", 5, &[]).await?;
    let texts = refuse_first_batch(&outbox, &topic, Rules::default()).await?;
    assert_eq!(texts, ["large", "1", "2", "3", "4"]);
    Ok(())
}

/// A known wrong behaviour of brokers before 4.5, KAFKA-15591: the reason for the rule that the test
/// above shows at work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_rule_records_are_written_behind_a_refused_first_batch() -> anyhow::Result<()> {
    let outbox = Outbox::shared("first_together").await?;
    let topic = outbox.topic("first-together", 5, &[]).await?;
    let texts = refuse_first_batch(&outbox, &topic, Rules::without([Rule::FirstAlone])).await?;
    assert_eq!(texts, ["1", "2", "3", "4", "large"]);
    Ok(())
}

#[tokio::test]
async fn a_lowered_limit_pauses_its_topic_and_fails_no_row() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::shared("lowered").await?;
    let topic = outbox.topic("lowered", 3, &[]).await?;
    let publisher = outbox.publisher("publisher").start().await?;
    let load = Load::start(&outbox, &topic, 2, 20, Duration::from_millis(5));
    outbox
        .until_number(
            "select count(*) from outbox_events where status = 'PUBLISHED'",
            SOON,
            |count| count > 200,
        )
        .await?;

    // when: the limit is under the load's batches
    topics::alter(&outbox.brokers, &topic, SMALL_LIMIT).await?;
    outbox
        .write(&[NewEvent::new(topic.as_str(), "test.happened", noise(LARGE)).key("key-3")])
        .await?;
    let said = until_readiness(&publisher, SOON, "that the limit was lowered", |status, body| {
        status == 503 && body.contains("lowered")
    })
    .await?;
    assert!(said.contains(&topic), "{said}");
    load.more(2_000).await?;
    let cpu = cpu_of(&publisher)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    eprintln!("paused: {:?} of processor time in 2 s", cpu_of(&publisher)? - cpu);
    let paused = outbox.statuses().await?;
    topics::alter(&outbox.brokers, &topic, USUAL_LIMIT).await?;
    let written = load.stop().await? + 1;

    // then
    assert!(paused["PENDING"] > 1_000, "{paused:?}");
    outbox.until_statuses(&[("PUBLISHED", written as i64)]).await?;
    assert_eq!(outbox.attempts().await?, 0);
    publisher.ready(SOON).await?;
    outbox.end(vec![publisher], outbox.audit().with_faults()).await?;
    Ok(())
}

#[tokio::test]
async fn followers_of_a_failed_row_wait_for_its_redrive_where_the_topic_halts() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::shared("halts").await?;
    let topic = outbox.topic("halts", 1, SMALL_LIMIT).await?;
    let service = outbox
        .publisher("publisher")
        .set("RETRY__AFTER_FAILED", "halt")
        .set("RETRY__TOPIC_REFRESH_SECONDS", 1);
    let publisher = service.start().await?;
    let large = NewEvent::new(topic.as_str(), "test.happened", noise(LARGE)).key("a");
    let events = [
        event(&topic, "a", "0"),
        large,
        event(&topic, "a", "2"),
        event(&topic, "a", "3"),
        event(&topic, "b", "other"),
    ];

    // when
    outbox.write(&events).await?;
    outbox
        .until_statuses(&[("FAILED", 1), ("PENDING", 2), ("PUBLISHED", 2)])
        .await?;
    outbox
        .write(&[event(&topic, "a", "4"), event(&topic, "b", "other")])
        .await?;
    outbox
        .until_statuses(&[("FAILED", 1), ("PENDING", 3), ("PUBLISHED", 3)])
        .await?;
    // A restart changes nothing of a halt.
    publisher.terminate(SOON).await?;
    let publisher = service.start().await?;
    outbox.write(&[event(&topic, "b", "other")]).await?;
    outbox
        .until_statuses(&[("FAILED", 1), ("PENDING", 3), ("PUBLISHED", 4)])
        .await?;
    topics::alter(&outbox.brokers, &topic, USUAL_LIMIT).await?;
    wait::until("the raised limit to be known", SOON, || async {
        // The publisher believes what it knows of a topic for a second.
        if outbox.statuses().await?.contains_key("FAILED") {
            outbox.redrive(&topic).await?;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(Seen::when(outbox.statuses().await?, |now| {
            now.get("PUBLISHED") == Some(&8)
        }))
    })
    .await?;

    // then
    let reads = topics::read_all(&outbox.brokers, &topic).await?;
    let of_a: Vec<_> = events[..4].iter().map(NewEvent::id).collect();
    let order: Vec<_> = ids_on(&reads).into_iter().filter(|id| of_a.contains(id)).collect();
    assert_eq!(order, of_a);
    outbox.end(vec![publisher], outbox.audit()).await?;
    Ok(())
}

/// A compacted topic refuses a record without a key: a refusal that only the broker can make.
#[tokio::test]
async fn a_refused_record_in_the_middle_of_its_batch_fails_alone() -> anyhow::Result<()> {
    // given: all that one transaction writes goes to the broker in one batch
    let outbox = Outbox::shared("middle").await?;
    let topic = outbox.topic("middle", 1, &[("cleanup.policy", "compact")]).await?;
    let publisher = outbox
        .publisher("publisher")
        .set("KAFKA__PROPERTIES__LINGER_MS", 300)
        .start()
        .await?;
    outbox.write_rounds(&topic, &["a", "b"], 1).await?;
    outbox.until_statuses(&[("PUBLISHED", 2)]).await?;
    let poison = NewEvent::new(topic.as_str(), "test.happened", "refused");
    let of = |n: usize| event(&topic, ["a", "b", "c"][n % 3], &n.to_string());
    let events: Vec<_> = (0..30)
        .map(of)
        .chain([poison.clone()])
        .chain((30..60).map(of))
        .collect();

    // when
    outbox.write(&events).await?;

    // then
    outbox.until_statuses(&[("FAILED", 1), ("PUBLISHED", 62)]).await?;
    let failed: Vec<Uuid> = sqlx::query_scalar("select event_id from outbox_failed")
        .fetch_all(&mut outbox.connect().await?)
        .await?;
    assert_eq!(failed, [poison.id()]);
    assert_eq!(
        outbox.attempts().await?,
        4,
        "the poison row's; its neighbours were refused with it and spent none"
    );
    // The batch was refused whole, then the row alone.
    publisher
        .until_metric("outbox_producer_rebuilds_total", SOON, |rebuilds| rebuilds >= 2.0)
        .await?;
    outbox
        .end(
            vec![publisher],
            outbox.audit().allow_failed([poison.id()]).with_faults(),
        )
        .await?;
    Ok(())
}

/// A compacted topic refuses a record without a key: a refusal that only the broker can make.
#[tokio::test]
async fn a_poison_row_spends_its_own_attempts_and_harms_no_other() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::shared("poison").await?;
    let topic = outbox.topic("poison", 3, &[("cleanup.policy", "compact")]).await?;
    let publisher = outbox.publisher("publisher").start().await?;
    let load = Load::start(&outbox, &topic, 1, 20, Duration::from_millis(5));
    load.more(200).await?;
    let poison = NewEvent::new(topic.as_str(), "test.happened", "refused");

    // when
    outbox.write(std::slice::from_ref(&poison)).await?;
    outbox
        .until_number(
            "select count(*) from outbox_events where status = 'FAILED'",
            SOON,
            |count| count == 1,
        )
        .await?;
    let rebuilds = publisher.metric("outbox_producer_rebuilds_total").await?.unwrap_or(0.0);
    load.more(200).await?;
    assert_eq!(outbox.redrive(&topic).await?, 1);
    load.more(200).await?;
    outbox
        .until_number(
            "select count(*) from outbox_events where redriven_at is not null and status = 'FAILED'",
            SOON,
            |count| count == 1,
        )
        .await?;

    // then
    let written = load.stop().await?;
    outbox
        .until_statuses(&[("FAILED", 1), ("PUBLISHED", written as i64)])
        .await?;
    assert_eq!(outbox.attempts().await?, 4, "of the poison row, since its redrive");
    assert_eq!(
        outbox
            .number("select count(*) from outbox_events where publish_attempts > 0")
            .await?,
        1
    );
    eprintln!("{rebuilds} producers were rebuilt for 4 attempts");
    let verdict = outbox
        .end(
            vec![publisher],
            outbox.audit().allow_failed([poison.id()]).with_faults(),
        )
        .await?;
    eprintln!(
        "{} duplicates beside {} published",
        verdict.publish_duplicates, verdict.published
    );
    Ok(())
}
