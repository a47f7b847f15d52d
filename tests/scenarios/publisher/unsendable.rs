//! Rows that no broker would take: set aside at once, each with its reason, in nobody's way.

use harness::topics;
use shared::outbox::NewEvent;

use crate::publisher::refusals::{LARGE, SMALL_LIMIT, noise};
use crate::publisher::{Outbox, SOON, event, ids_on};

/// What `outbox_failed` says of each event.
async fn reasons(outbox: &Outbox<'_>) -> anyhow::Result<Vec<String>> {
    let mut connection = outbox.connect().await?;
    Ok(sqlx::query_scalar("select last_error from outbox_failed order by id")
        .fetch_all(&mut connection)
        .await?)
}

#[tokio::test]
async fn a_row_over_the_limit_fails_at_once_and_its_followers_go_on() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::shared("oversize").await?;
    let topic = outbox.topic("oversize", 3, SMALL_LIMIT).await?;
    let publisher = outbox.publisher("publisher").start().await?;
    let large = NewEvent::new(topic.as_str(), "test.happened", noise(LARGE)).key("a");

    // when
    outbox
        .write(&[
            event(&topic, "a", "before"),
            large.clone(),
            event(&topic, "a", "after"),
            event(&topic, "b", "other"),
        ])
        .await?;

    // then
    outbox.until_statuses(&[("FAILED", 1), ("PUBLISHED", 3)]).await?;
    let reasons = reasons(&outbox).await?;
    assert!(reasons[0].contains("limit of 4000"), "{reasons:?}");
    assert_eq!(outbox.attempts().await?, 1);
    outbox
        .end(vec![publisher], outbox.audit().allow_failed([large.id()]))
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_row_that_cannot_be_a_record_fails_with_its_reason_and_harms_no_other() -> anyhow::Result<()> {
    // given: rows that were not written through the library
    let outbox = Outbox::shared("unencodable").await?;
    let topic = outbox.topic("unencodable", 3, &[]).await?;
    let row = |key| event(&topic, key, "damaged");
    let [bucket, headers, lane] = [row("a"), row("b"), row("c")];
    outbox
        .write(&[event(&topic, "a", "0"), bucket.clone(), headers.clone(), lane.clone()])
        .await?;
    let mut connection = outbox.connect().await?;
    for (damage, event) in [
        (
            "update outbox_events set bucket = (bucket + 1) % 64 where event_id = $1",
            &bucket,
        ),
        (
            "update outbox_events set headers = '\\xff' where event_id = $1",
            &headers,
        ),
        (
            "update outbox_events set lane_hash = lane_hash + 1 where event_id = $1",
            &lane,
        ),
    ] {
        let damaged = sqlx::query(damage).bind(event.id()).execute(&mut connection).await?;
        assert_eq!(damaged.rows_affected(), 1);
    }

    // when
    let publisher = outbox
        .publisher("publisher")
        .set("RETRY__AFTER_FAILED", "continue")
        .start()
        .await?;
    outbox.write_rounds(&topic, &["a", "b", "c"], 10).await?;

    // then
    outbox.until_statuses(&[("FAILED", 3), ("PUBLISHED", 31)]).await?;
    let reasons = reasons(&outbox).await?;
    for (reason, said) in reasons.iter().zip(["does not match the key", "headers", "lane_hash"]) {
        assert!(reason.contains(said), "{reasons:?}");
    }
    for cause in ["wrong_bucket", "headers", "wrong_lane_hash"] {
        let name = format!("outbox_failed_events_total{{reason=\"{cause}\"}}");
        publisher.until_metric(&name, SOON, |failed| failed == 1.0).await?;
    }
    let line = format!("event {} to topic {topic} is set aside as FAILED", headers.id());
    publisher.until_logged(&line, SOON).await?;
    assert_eq!(publisher.metric("outbox_producer_rebuilds_total").await?, Some(0.0));
    let damaged = [bucket.id(), headers.id(), lane.id()];
    outbox
        .end(vec![publisher], outbox.audit().allow_failed(damaged))
        .await?;
    Ok(())
}

/// The dead letters of a key and its outcomes are two lanes, also where a FAILED row halts its lane.
#[tokio::test]
async fn a_dead_letter_too_large_for_its_topic_stops_no_outcome_of_its_key() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::shared("small_dlt").await?;
    let (outcomes, dead_letters) = (
        outbox.topic("outcomes", 3, &[]).await?,
        outbox.topic("input.dlt", 3, SMALL_LIMIT).await?,
    );
    let publisher = outbox
        .publisher("publisher")
        .set("RETRY__AFTER_FAILED", "halt")
        .start()
        .await?;
    let large = NewEvent::new(dead_letters.as_str(), "dead-letter", noise(LARGE)).key("a");
    let mut events = vec![
        event(&outcomes, "a", "0"),
        large.clone(),
        event(&dead_letters, "a", "halted"),
    ];
    events.extend((1..20).map(|n| event(&outcomes, "a", &n.to_string())));

    // when
    outbox.write(&events).await?;
    outbox.write_rounds(&outcomes, &["a", "b"], 10).await?;

    // then
    outbox
        .until_statuses(&[("FAILED", 1), ("PENDING", 1), ("PUBLISHED", 40)])
        .await?;
    let of_outcomes: Vec<_> = [0].into_iter().chain(3..22).map(|at: usize| events[at].id()).collect();
    let order: Vec<_> = ids_on(&topics::read_all(&outbox.brokers, &outcomes).await?);
    let order: Vec<_> = order.into_iter().filter(|id| of_outcomes.contains(id)).collect();
    assert_eq!(order, of_outcomes);
    // The large one is given up: what it halted goes on, and only then may the publisher be judged.
    let given_up = sqlx::query("delete from outbox_events where event_id = $1").bind(large.id());
    assert_eq!(given_up.execute(&mut outbox.connect().await?).await?.rows_affected(), 1);
    outbox.until_statuses(&[("PUBLISHED", 41)]).await?;
    outbox.end(vec![publisher], outbox.audit()).await?;
    Ok(())
}
