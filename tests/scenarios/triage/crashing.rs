//! Transactions whose end the service has not seen.

use harness::postgres::Postgres;
use harness::proxy::Flow;
use harness::{Ability, Database, Stack};
use uuid::Uuid;

use super::scene::{
    self, CLAIMS, DECISIONS, Gate, OUTBOX, SET_ASIDE, SOON, Scene, Stop, event, events, metric, start, until_metric,
    until_not_ready,
};

#[tokio::test]
async fn a_crash_between_commit_and_offset_decides_nothing_twice() -> anyhow::Result<()> {
    // given: a service that commits batches and would tell Kafka ten minutes later
    let scene = Scene::new("before_offset", 3).await?;
    let silent = scene
        .service("silent")
        .set("KAFKA__PROPERTIES__AUTO_COMMIT_INTERVAL_MS", 600_000)
        .set("INTAKE__BATCH_RECORDS", 20);
    let first = start(&silent).await?;
    scene.send(events(600, 20)).await?;

    // when: it is killed with some of them committed, and another one takes its place
    scene.until(CLAIMS, |count| count >= 100).await?;
    first.kill()?;
    let decided = scene.number(DECISIONS).await?;
    assert!(
        scene
            .committed()
            .await?
            .iter()
            .all(|partition| partition.offset.is_none())
    );
    let second = scene.start("second").await?;
    scene.until_passed().await?;

    // then: all is delivered again, and what was decided is known
    assert_eq!(metric(&second, "triage_records_total").await?, 600);
    assert!(metric(&second, "triage_duplicates_total").await? >= decided.unsigned_abs());
    assert_eq!(
        (scene.number(DECISIONS).await?, scene.number(OUTBOX).await?),
        (600, 600)
    );
    assert_eq!(metric(&second, "triage_payload_mismatches_total").await?, 0);
    scene.end(vec![second]).await?;
    Ok(())
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found_again_before_its_offset_moves() -> anyhow::Result<()> {
    // given: a transaction inside its COMMIT
    let scene = Scene::new("unclear_commit", 1).await?;
    if scene.stack.skips("unclear_commit", &[Ability::DatabaseProcess]) {
        return Ok(());
    }
    let (network, url) = scene.postgres_through_proxy()?;
    let service = start(&scene.service("triage").set("DATABASE__URL", url)).await?;
    let mut gate = Gate::close(&scene, Stop::InsideCommit).await?;
    scene
        .send(vec![
            event(Uuid::new_v4(), "customer-1", "one"),
            event(Uuid::new_v4(), "customer-1", "two"),
        ])
        .await?;
    gate.until_somebody_waits().await?;

    // when: it commits, and nobody hears of it
    network.to_client(Flow::BlackHole);
    gate.open().await?;
    scene.until(DECISIONS, |count| count == 2).await?;
    let before = scene.committed().await?;
    network.to_client(Flow::Pass); // which cuts what has lost something

    // then
    assert_eq!(before[0].offset, None, "an offset moved before its commit was known");
    until_metric(&service, r#"triage_attempts_total{result="unclear"}"#, 1).await?;
    scene.until_passed().await?;
    assert_eq!(metric(&service, "triage_duplicates_total").await?, 2);
    assert_eq!((scene.number(DECISIONS).await?, scene.number(OUTBOX).await?), (2, 2));
    scene.end(vec![service]).await?;
    Ok(())
}

#[tokio::test]
async fn a_commit_that_never_arrived_is_made_again() -> anyhow::Result<()> {
    // given: a transaction with everything written, whose COMMIT is about to be sent
    let scene = Scene::new("lost_commit", 1).await?;
    if scene.stack.skips("lost_commit", &[Ability::DatabaseProcess]) {
        return Ok(());
    }
    let (network, url) = scene.postgres_through_proxy()?;
    let service = scene
        .service("triage")
        .set("DATABASE__URL", url)
        .set("DATABASE__IDLE_IN_TRANSACTION_TIMEOUT_MS", 1_000);
    let service = start(&service).await?;
    let mut gate = Gate::close(&scene, Stop::BeforeOutbox).await?;
    scene.send(events(5, 1)).await?;
    gate.until_somebody_waits().await?;

    // when: the network swallows it
    network.to_server(Flow::BlackHole);
    gate.open().await?;
    let idle =
        "select count(*) from pg_stat_activity where state = 'idle in transaction' and datname = current_database()";
    scene.until(idle, |count| count == 1).await?;
    scene.until(idle, |count| count == 0).await?; // the server ends it
    let before = (scene.number(DECISIONS).await?, scene.committed().await?[0].offset);
    network.to_server(Flow::Pass);

    // then
    assert_eq!(before, (0, None));
    scene.until_passed().await?;
    assert_eq!((scene.number(DECISIONS).await?, scene.number(OUTBOX).await?), (5, 5));
    assert_eq!(metric(&service, "triage_duplicates_total").await?, 0);
    scene.end(vec![service]).await?;
    Ok(())
}

#[tokio::test]
async fn a_postgres_host_that_says_nothing_holds_no_worker_for_ever() -> anyhow::Result<()> {
    // given: one worker, which gives a transaction up after two seconds
    let scene = Scene::new("silent_host", 1).await?;
    if scene.stack.skips("silent_host", &[Ability::DatabaseProcess]) {
        return Ok(());
    }
    let (network, url) = scene.postgres_through_proxy()?;
    let service = scene
        .service("triage")
        .set("DATABASE__URL", url)
        .set("DATABASE__CONNECT_TIMEOUT_MS", 500)
        .set("DATABASE__LOCK_TIMEOUT_MS", 1_000)
        .set("DATABASE__IDLE_IN_TRANSACTION_TIMEOUT_MS", 1_000)
        .set("INTAKE__WORKERS", 1)
        .set("INTAKE__ATTEMPT_TIMEOUT_MS", 2_000);
    let service = start(&service).await?;
    scene.send(events(10, 2)).await?;
    scene.until_passed().await?;

    // when: every packet is lost, both ways, and no connection is closed
    network.both(Flow::BlackHole);
    scene.send(events(10, 2)).await?;

    // then: the worker tries again, also to connect, and says so
    service.until_logged("given up after 2s", SOON).await?;
    until_metric(&service, r#"triage_attempts_total{result="unavailable"}"#, 2).await?;
    until_not_ready(&service, "postgres").await?;
    network.both(Flow::Pass);
    scene.until_passed().await?;
    service.ready(SOON).await?;
    assert_eq!(
        (scene.number(DECISIONS).await?, scene.number(SET_ASIDE).await?),
        (20, 0)
    );
    scene.end(vec![service]).await?;
    Ok(())
}

#[tokio::test]
async fn a_batch_of_duplicates_waits_for_the_standby_that_what_it_relies_on_waits_for() -> anyhow::Result<()> {
    // given: a decided event, on a server whose standby then says nothing any more
    let stack = Stack::shared().await?;
    if stack.skips("standbys", &[Ability::DatabaseProcess]) {
        return Ok(());
    }
    let server = Postgres::start_new("triage-standbys", &[]).await?;
    let database = Database {
        name: "postgres".to_owned(),
        url: server.url("postgres"),
    };
    let scene = Scene::with_database(stack, database, "standbys", 1).await?;
    let service = scene.start("triage").await?;
    let once = event(Uuid::new_v4(), "customer-1", "once is enough");
    scene.send(vec![once.clone()]).await?;
    scene.until_passed().await?;
    scene
        .run("alter system set synchronous_standby_names = 'nobody'")
        .await?;
    scene.run("select pg_reload_conf()").await?;
    scene
        .until(
            "select count(*) from pg_settings where name = 'synchronous_standby_names' and setting = 'nobody'",
            |count| count == 1,
        )
        .await?;

    // when: the event comes again, and its transaction finds nothing to write
    scene.send(vec![once]).await?;

    // then: it waits for the standby all the same, and its offset with it
    let waiting = "select count(*) from pg_stat_activity where application_name = 'triage-service' \
         and wait_event = 'SyncRep' and query like '%commit'";
    scene.until(waiting, |count| count == 1).await?;
    let offset = scene.committed().await?[0].offset;
    assert_eq!(offset, Some(1), "an offset moved before what it relies on was safe");

    // when: there is no standby to wait for any more
    scene.run("alter system reset synchronous_standby_names").await?;
    scene.run("select pg_reload_conf()").await?;

    // then
    scene.until_passed().await?;
    assert_eq!(metric(&service, "triage_duplicates_total").await?, 1);
    scene::drain(vec![service]).await?;
    scene.publish().await?;
    scene.judge(&scene.triage).await?;
    Ok(())
}
