//! A topic that is not there, and then is.

use std::time::{Duration, Instant};

use harness::topics;

use crate::publisher::{Load, Outbox, SOON, cpu_of, event, until_readiness};

#[tokio::test]
async fn events_of_a_missing_topic_wait_and_hold_up_nothing_else() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::shared("missing").await?;
    let (healthy, missing) = (
        outbox.topic("healthy", 3, &[]).await?,
        harness::stack::unique("missing").replace('_', "-"),
    );
    let publisher = outbox.publisher("publisher").start().await?;

    // when: more rows of the missing topic than a bucket's ring holds, of one key, and healthy ones behind them
    let mut connection = outbox.connect().await?;
    for round in 0..10 {
        let dead: Vec<_> = (0..500)
            .map(|n| event(&missing, "key-1", &format!("dead {round} {n}")))
            .collect();
        crate::publisher::write(&mut connection, &dead).await?;
        crate::publisher::write(&mut connection, &[event(&healthy, "key-1", &format!("{round}"))]).await?;
    }
    outbox.until_statuses(&[("PENDING", 5_000), ("PUBLISHED", 10)]).await?;
    let said = until_readiness(&publisher, SOON, "which topic is missing", |status, _| status == 503).await;
    let said = match said {
        Ok(said) if said.contains(&missing) => said,
        _ => {
            until_readiness(&publisher, SOON, "which topic is missing", |_, body| {
                body.contains(&missing)
            })
            .await?
        }
    };
    let cpu = cpu_of(&publisher)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let cpu = cpu_of(&publisher)? - cpu;
    eprintln!("a topic is missing: {cpu:?} of processor time in 3 s; {said}");
    assert!(cpu < Duration::from_millis(450), "{cpu:?} of processor time in 3 s");
    outbox.write(&[event(&healthy, "key-1", "last")]).await?;
    outbox.until_statuses(&[("PENDING", 5_000), ("PUBLISHED", 11)]).await?;
    topics::create(&outbox.brokers, &missing, 2, 1, &[]).await?;

    // then
    outbox.until_statuses(&[("PUBLISHED", 5_011)]).await?;
    assert_eq!(outbox.attempts().await?, 0);
    publisher.ready(SOON).await?;
    outbox.end(vec![publisher], outbox.audit()).await?;
    Ok(())
}

/// A topic that was away has all its keys in the side lane. New events of these keys go on arriving: they must
/// not keep the keys there.
#[tokio::test]
async fn the_backlog_of_a_topic_that_was_away_is_worked_off_under_load() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::shared("backlog").await?;
    let missing = harness::stack::unique("backlog").replace('_', "-");
    let publisher = outbox.publisher("publisher").start().await?;
    let load = Load::start(&outbox, &missing, 2, 30, Duration::from_millis(20));
    load.more(15_000).await?;
    let parked = publisher
        .until_metric("outbox_parked_events_total", SOON, |parked| parked > 1_000.0)
        .await?;

    // when
    topics::create(&outbox.brokers, &missing, 3, 1, &[]).await?;

    // then
    let began = Instant::now();
    publisher
        .until_metric("outbox_keys_blocked", SOON, |blocked| blocked == 0.0)
        .await?;
    eprintln!(
        "{parked} events were parked; no key is blocked {:?} after the topic was made",
        began.elapsed()
    );
    load.stop().await?;
    outbox.until_nothing_waits().await?;
    assert_eq!(outbox.attempts().await?, 0);
    outbox.end(vec![publisher], outbox.audit()).await?;
    Ok(())
}
