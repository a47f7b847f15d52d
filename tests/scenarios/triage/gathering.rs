//! Records that come one by one, behind a transaction that took long.

use std::time::{Duration, Instant};

use harness::feed::Writer;
use uuid::Uuid;

use super::scene::{DECISIONS, Gate, Scene, Stop, event, start};

/// How long the transaction stands at the gate: three times that is more than any wait for records may be.
const HELD: Duration = Duration::from_millis(500);
/// The longest wait for records that a service may be given.
const GATHER_MAX: Duration = Duration::from_millis(1_000);
/// From the record that waits for nobody to the last of those behind it: well within that wait.
const TIMELY: Duration = Duration::from_millis(700);
/// A machine that stops for most of a second shows nothing.
const TRIES: usize = 5;
/// Transactions of the records behind the first two.
const TRANSACTIONS: &str = "select count(distinct xmin::text) from processed_events where kafka_offset > 1";

#[tokio::test]
async fn records_one_by_one_share_a_transaction_only_where_they_are_gathered() -> anyhow::Result<()> {
    assert_eq!(transactions_of_four("gathered", GATHER_MAX).await?, 1);
    assert!(transactions_of_four("one_by_one", Duration::ZERO).await? > 1);
    Ok(())
}

/// In how many transactions four records were claimed that came one after the other.
async fn transactions_of_four(name: &str, gather_max: Duration) -> anyhow::Result<i64> {
    for _ in 0..TRIES {
        // given: a transaction that took long
        let scene = Scene::new(name, 1).await?;
        let service = scene
            .service("triage")
            .set("INTAKE__GATHER_MAX_MS", gather_max.as_millis());
        let service = start(&service).await?;
        let mut gate = Gate::close(&scene, Stop::BeforeOutbox).await?;
        let writer = Writer::new(&scene.brokers, scene.input())?;
        let send_one = || writer.send(&event(Uuid::new_v4(), "customer-1", "a message"));
        send_one()?;
        gate.until_somebody_waits().await?;
        tokio::time::sleep(HELD).await;
        gate.open().await?;
        scene.until(DECISIONS, |count| count == 1).await?;

        // when: one after a quiet moment, then four one by one
        let began = Instant::now();
        send_one()?;
        scene.until(DECISIONS, |count| count == 2).await?;
        for _ in 0..4 {
            send_one()?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        writer.flush()?;
        let is_timely = began.elapsed() < TIMELY;
        scene.until(DECISIONS, |count| count == 6).await?;

        // then
        let transactions = scene.number(TRANSACTIONS).await?;
        scene.end(vec![service]).await?;
        if is_timely {
            return Ok(transactions);
        }
    }
    anyhow::bail!("the machine stood still in each of {TRIES} tries")
}
