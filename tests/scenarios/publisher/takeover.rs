//! Publishers that die, stall or come back, and what their successors find.

use std::time::{Duration, Instant};

use harness::proxy::Proxy;
use harness::topics;
use harness::wait::{self, Seen};
use shared::outbox::NewEvent;

use crate::publisher::{LEASE, Load, Outbox, SOON, event, until_readiness};

/// Records on a topic.
async fn records(outbox: &Outbox<'_>, topic: &str) -> anyhow::Result<i64> {
    Ok(topics::reaches(&outbox.stack.brokers(), topic)
        .await?
        .iter()
        .map(|reach| reach.high)
        .sum())
}

#[tokio::test]
async fn a_publisher_that_outlived_its_lease_changes_nothing_of_its_successors() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::shared("outlived").await?;
    let topic = outbox.topic("outlived", 3, &[]).await?;
    let zombie = outbox.publisher("zombie").start().await?;
    let load = Load::start(&outbox, &topic, 2, 20, Duration::from_millis(4));
    load.more(300).await?;
    let successor = outbox.publisher("successor").start().await?;
    load.more(300).await?;

    // when: it stands still for three leases
    for _ in 0..2 {
        zombie.freeze()?;
        let began = Instant::now();
        outbox
            .until_number(
                "select count(distinct lock_owner) from outbox_leases where locked_until > now()",
                SOON,
                |owners| owners == 1,
            )
            .await?;
        eprintln!("taken over {:?} after the freeze", began.elapsed());
        assert!(began.elapsed() < LEASE + Duration::from_secs(2));
        tokio::time::sleep((3 * LEASE).saturating_sub(began.elapsed())).await;
        zombie.thaw()?;
        load.more(500).await?;
        outbox
            .until_number(
                "select count(distinct lock_owner) from outbox_leases where locked_until > now()",
                SOON,
                |owners| owners == 2,
            )
            .await?;
    }

    // then
    let written = load.stop().await?;
    outbox.until_statuses(&[("PUBLISHED", written as i64)]).await?;
    assert_eq!(outbox.attempts().await?, 0);
    let verdict = outbox
        .end(vec![zombie, successor], outbox.audit().with_faults())
        .await?;
    eprintln!(
        "{} duplicates beside {} published",
        verdict.publish_duplicates, verdict.published
    );
    Ok(())
}

#[tokio::test]
async fn frames_of_a_dead_producer_that_arrive_late_leave_first_occurrences_in_order() -> anyhow::Result<()> {
    // given: a publisher whose requests are held on their way
    let outbox = Outbox::shared("late_frames").await?;
    let topic = outbox.topic("late-frames", 1, &[]).await?;
    let kafka = outbox.stack.kafka().expect("a real broker");
    let route = kafka.route()?;
    let proxy = Proxy::for_kafka(&route)?;
    let doomed = outbox
        .publisher("doomed")
        .set("KAFKA__BROKERS", proxy.address())
        .start()
        .await?;
    outbox.write_rounds(&topic, &["a", "b"], 20).await?;
    outbox.until_statuses(&[("PUBLISHED", 40)]).await?;
    proxy.hold_produce(true);
    outbox.write_rounds(&topic, &["a", "b"], 20).await?;
    wait::until("requests to be held", SOON, || async {
        Ok(Seen::when(proxy.held(), |held| *held > 0))
    })
    .await?;

    // when
    doomed.kill()?;
    let successor = outbox.publisher("successor").start().await?;
    outbox.until_statuses(&[("PUBLISHED", 80)]).await?;
    let before = records(&outbox, &topic).await?;
    proxy.release_held();
    wait::until("the held requests to be written", SOON, || async {
        Ok(Seen::when(records(&outbox, &topic).await?, |now| *now > before))
    })
    .await?;
    outbox.write_rounds(&topic, &["a", "b"], 20).await?;

    // then
    outbox.until_statuses(&[("PUBLISHED", 120)]).await?;
    let verdict = outbox.end(vec![successor], outbox.audit().with_faults()).await?;
    assert!(verdict.publish_duplicates > 0, "nothing came late");
    Ok(())
}

#[tokio::test]
async fn a_kill_between_acknowledgement_and_settle_costs_duplicates_only() -> anyhow::Result<()> {
    // given: acknowledged rows that are not marked
    let outbox = Outbox::shared("ack_settle").await?;
    let topic = outbox.topic("ack-settle", 3, &[]).await?;
    let doomed = outbox
        .publisher("doomed")
        .set("RELAY__SETTLE_DELAY_MS", 60_000)
        .start()
        .await?;
    outbox.write_rounds(&topic, &["a", "b", "c", "d", "e"], 60).await?;
    wait::until("all to be on the topic", SOON, || async {
        Ok(Seen::when(records(&outbox, &topic).await?, |now| *now == 300))
    })
    .await?;
    assert_eq!(outbox.statuses().await?, [("PENDING".to_owned(), 300)].into());
    // Its successor stands ready.
    let successor = outbox.publisher("successor").start().await?;
    until_readiness(&successor, SOON, "that it is ready", |status, _| status == 200).await?;

    // when
    doomed.kill()?;
    let began = Instant::now();
    outbox.until_statuses(&[("PUBLISHED", 300)]).await?;

    // then
    eprintln!("published {:?} after the kill", began.elapsed());
    assert!(
        began.elapsed() < LEASE + Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    let verdict = outbox.end(vec![successor], outbox.audit().with_faults()).await?;
    assert!(verdict.publish_duplicates <= 300, "{verdict:?}");
    assert!(
        verdict.publish_duplicates > 0,
        "the kill came too late to show anything"
    );
    Ok(())
}

/// One key blocked by a row that the broker refuses, one halted by a FAILED row, many parked behind both.
#[tokio::test]
async fn a_take_over_keeps_blocked_halted_and_parked_keys_in_order() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::shared("taken_side").await?;
    let topic = outbox.topic("taken-side", 2, &[("max.message.bytes", "4000")]).await?;
    let missing = harness::stack::unique("later").replace('_', "-");
    let service = |name| {
        let service = outbox
            .publisher(name)
            .set("RETRY__AFTER_FAILED", "halt")
            .set("RETRY__TOPIC_REFRESH_SECONDS", 1);
        service
            .set("RELAY__BUCKET_ROWS_MAX", 64)
            .set("RELAY__READ_ROWS_MAX", 64)
    };
    let doomed = service("doomed").start().await?;
    let large: Vec<u8> = (0..400).flat_map(|_| uuid::Uuid::new_v4().into_bytes()).collect();
    outbox
        .write(&[NewEvent::new(topic.as_str(), "test.happened", large).key("halted")])
        .await?;
    outbox.until_statuses(&[("FAILED", 1)]).await?;
    outbox.write_rounds(&topic, &["halted", "healthy"], 100).await?;
    outbox.write_rounds(&missing, &["halted", "blocked"], 100).await?;
    outbox
        .until_number("select count(*) from outbox_events where lane = 1", SOON, |parked| {
            parked >= 150
        })
        .await?;
    outbox
        .until_number(
            "select count(*) from outbox_events where status = 'PUBLISHED'",
            SOON,
            |published| published == 100,
        )
        .await?;

    // when
    doomed.kill()?;
    let successor = service("successor").start().await?;
    outbox.write_rounds(&topic, &["halted", "healthy"], 20).await?;
    outbox.write_rounds(&missing, &["halted", "blocked"], 20).await?;
    outbox
        .until_number(
            "select count(*) from outbox_events where status = 'PUBLISHED'",
            SOON,
            |published| published == 120,
        )
        .await?;
    assert_eq!(
        outbox
            .number("select count(*) from outbox_events where status = 'FAILED'")
            .await?,
        1
    );
    topics::create(&outbox.brokers, &missing, 3, 1, &[]).await?;
    outbox
        .until_number(
            "select count(*) from outbox_events where status = 'PUBLISHED'",
            SOON,
            |published| published == 360,
        )
        .await?;
    topics::alter(&outbox.brokers, &topic, &[("max.message.bytes", "1048588")]).await?;
    wait::until("the redriven row to be published", SOON, || async {
        if outbox.statuses().await?.contains_key("FAILED") {
            outbox.redrive(&topic).await?;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(Seen::when(outbox.statuses().await?, |now| now.len() == 1))
    })
    .await?;
    outbox.write(&[event(&topic, "halted", "last")]).await?;

    // then
    outbox.until_statuses(&[("PUBLISHED", 482)]).await?;
    outbox.end(vec![successor], outbox.audit().with_faults()).await?;
    Ok(())
}
