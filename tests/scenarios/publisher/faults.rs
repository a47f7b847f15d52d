//! Postgres or Kafka away, slow or silent, under load.

use std::time::{Duration, Instant};

use harness::kafka::KafkaOptions;
use harness::postgres::Stop;
use harness::proxy::{Flow, Framing, Proxy};
use harness::{Ability, Stack};

use crate::publisher::{Load, Outbox, SOON, cpu_of, until_readiness};

const PUBLISHED: &str = "select count(*) from outbox_events where status = 'PUBLISHED'";

#[tokio::test]
async fn a_postgres_that_crashes_or_cuts_connections_costs_nothing_but_duplicates() -> anyhow::Result<()> {
    // given
    let stack = Stack::start("postgres-faults", &KafkaOptions::default(), &[]).await?;
    if stack.skips("a_postgres_that_crashes", &[Ability::DatabaseProcess]) {
        return Ok(());
    }
    let postgres = stack.postgres().expect("asked for");
    let outbox = Outbox::on(&stack, "crashes").await?;
    let topic = outbox.topic("crashes", 3, &[]).await?;
    let publishers = [
        outbox.publisher("first").start().await?,
        outbox.publisher("second").start().await?,
    ];
    let load = Load::start(&outbox, &topic, 3, 30, Duration::from_millis(3));
    load.more(500).await?;

    // when
    for stop in [Stop::Crash, Stop::Kill, Stop::Fast] {
        postgres.stop(stop).await?;
        until_readiness(&publishers[0], SOON, "that Postgres is away", |status, body| {
            status == 503 && body.contains("postgres")
        })
        .await?;
        postgres.start().await?;
        let began = Instant::now();
        publishers[0].ready(SOON).await?;
        let published = outbox.number(PUBLISHED).await?;
        outbox
            .until_number(PUBLISHED, SOON, |now| now > published + 100)
            .await?;
        eprintln!("{stop:?}: published again {:?} after the start", began.elapsed());
        load.more(300).await?;
    }
    for _ in 0..5 {
        postgres.terminate_sessions("outbox-publisher%").await?;
        load.more(200).await?;
    }

    // then
    load.stop().await?;
    outbox.until_nothing_waits().await?;
    assert_eq!(outbox.attempts().await?, 0);
    let verdict = outbox.end(publishers.into(), outbox.audit().with_faults()).await?;
    eprintln!(
        "{} duplicates beside {} published",
        verdict.publish_duplicates, verdict.published
    );
    Ok(())
}

#[tokio::test]
async fn a_broker_that_is_away_or_hangs_spends_no_attempt_and_readiness_says_so() -> anyhow::Result<()> {
    // given
    let stack = Stack::start("broker-faults", &KafkaOptions::default().for_broker_faults(), &[]).await?;
    if stack.skips("a_broker_that_is_away", &[Ability::BrokerProcess]) {
        return Ok(());
    }
    let node = &stack.kafka().expect("asked for").nodes()[0];
    let outbox = Outbox::on(&stack, "away").await?;
    let topic = outbox.topic("away", 3, &[]).await?;
    let publisher = outbox
        .publisher("publisher")
        .set("RETRY__TOPIC_REFRESH_SECONDS", 2)
        .set("KAFKA__PROPERTIES__SOCKET_TIMEOUT_MS", 4_000)
        .set("KAFKA__PROPERTIES__REQUEST_TIMEOUT_MS", 3_000)
        .set("KAFKA__PROPERTIES__RECONNECT_BACKOFF_MAX_MS", 1_000)
        .start()
        .await?;
    let load = Load::start(&outbox, &topic, 2, 30, Duration::from_millis(10));
    load.more(300).await?;
    outbox.until_number(PUBLISHED, SOON, |count| count > 200).await?;

    for is_killed in [false, true] {
        // when: longer than every time-out above, several times over
        if is_killed {
            node.kill().await?;
        } else {
            node.freeze().await?;
        }
        let began = Instant::now();
        until_readiness(&publisher, SOON, "that Kafka is away", |status, body| {
            status == 503 && body.contains("kafka")
        })
        .await?;
        eprintln!("told {:?} after the broker was gone", began.elapsed());
        let cpu = cpu_of(&publisher)?;
        let measured = Instant::now();
        tokio::time::sleep(Duration::from_secs(15)).await;
        eprintln!(
            "away: {:?} of processor time in {:?}",
            cpu_of(&publisher)? - cpu,
            measured.elapsed()
        );
        let published = outbox.number(PUBLISHED).await?;
        if is_killed {
            node.start().await?;
        } else {
            node.thaw().await?;
        }
        let began = Instant::now();

        // then
        outbox
            .until_number(PUBLISHED, SOON, |now| now > published + 100)
            .await?;
        eprintln!("published again {:?} after the broker was back", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(10));
        publisher.ready(SOON).await?;
        load.more(100).await?;
    }
    let written = load.stop().await?;
    outbox.until_statuses(&[("PUBLISHED", written as i64)]).await?;
    assert_eq!(outbox.attempts().await?, 0);
    eprintln!("parked: {:?}", publisher.metric("outbox_parked_events_total").await?);
    let verdict = outbox.end(vec![publisher], outbox.audit().with_faults()).await?;
    eprintln!(
        "{} duplicates beside {} published",
        verdict.publish_duplicates, verdict.published
    );
    Ok(())
}

#[tokio::test]
async fn a_publisher_told_to_end_while_the_broker_is_away_or_hangs_leaves_in_time_and_keeps_no_lease()
-> anyhow::Result<()> {
    let stack = Stack::start("broker-ends", &KafkaOptions::default().for_broker_faults(), &[]).await?;
    if stack.skips("a_publisher_told_to_end", &[Ability::BrokerProcess]) {
        return Ok(());
    }
    let node = &stack.kafka().expect("asked for").nodes()[0];
    for is_killed in [false, true] {
        // given: rows in flight to a broker that does not answer
        let outbox = Outbox::on(&stack, "ends").await?;
        let topic = outbox.topic("ends", 3, &[]).await?;
        let publisher = outbox.publisher("doomed").set("RELAY__DRAIN_MS", 2_000).start().await?;
        outbox.write_rounds(&topic, &["a"], 1).await?;
        outbox.until_statuses(&[("PUBLISHED", 1)]).await?;
        if is_killed {
            node.kill().await?;
        } else {
            node.freeze().await?;
        }
        outbox.write_rounds(&topic, &["a", "b"], 10).await?;
        // One may be the row before, which the gauge still shows.
        publisher
            .until_metric("outbox_in_flight_events", SOON, |rows| rows > 1.0)
            .await?;

        // when
        let began = Instant::now();
        let code = publisher.terminate(SOON).await?;

        // then
        eprintln!("ended with {code} after {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(code, 1, "it was not drained");
        assert_eq!(
            outbox
                .number("select count(*) from outbox_leases where lock_owner is not null")
                .await?,
            0
        );
        assert_eq!(outbox.number("select count(*) from outbox_instances").await?, 0);
        assert_eq!(outbox.attempts().await?, 0);
        if is_killed {
            node.start().await?;
        } else {
            node.thaw().await?;
        }
        let successor = outbox.publisher("successor").start().await?;
        outbox.until_nothing_waits().await?;
        outbox.end(vec![successor], outbox.audit().with_faults()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_postgres_that_swallows_everything_holds_nobody_for_ever() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::shared("silent").await?;
    let topic = outbox.topic("silent", 3, &[]).await?;
    let Some(postgres) = outbox.stack.postgres() else {
        return Ok(());
    };
    let proxy = Proxy::to(postgres.port(), Framing::Raw)?;
    let url = format!("postgres://postgres@{}/{}", proxy.address(), outbox.database.name);
    let service = outbox
        .publisher("publisher")
        .set("DATABASE__URL", url)
        .set("RELAY__STATEMENT_MS", 1_500);
    let publisher = service.set("DATABASE__CONNECT_TIMEOUT_MS", 1_000).start().await?;
    let load = Load::start(&outbox, &topic, 2, 30, Duration::from_millis(5));
    load.more(300).await?;
    outbox.until_number(PUBLISHED, SOON, |count| count > 200).await?;

    for _ in 0..2 {
        // when
        proxy.both(Flow::BlackHole);
        until_readiness(&publisher, SOON, "that Postgres is silent", |status, body| {
            status == 503 && body.contains("no answer within")
        })
        .await?;
        let cpu = cpu_of(&publisher)?;
        tokio::time::sleep(Duration::from_secs(4)).await;
        eprintln!("silent: {:?} of processor time in 4 s", cpu_of(&publisher)? - cpu);
        let published = outbox.number(PUBLISHED).await?;
        proxy.both(Flow::Pass);
        let began = Instant::now();

        // then
        outbox
            .until_number(PUBLISHED, SOON, |now| now > published + 100)
            .await?;
        eprintln!("published again {:?} after Postgres was back", began.elapsed());
        publisher.ready(SOON).await?;
    }
    load.stop().await?;
    outbox.until_nothing_waits().await?;
    assert_eq!(outbox.attempts().await?, 0);
    outbox.end(vec![publisher], outbox.audit().with_faults()).await?;
    Ok(())
}
