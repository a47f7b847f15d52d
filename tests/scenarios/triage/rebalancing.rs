//! Partitions that move: from members that leave, and from one that stands still.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::Record;
use harness::wait::{self, Seen};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::scene::{
    self, CLAIMS, DECISIONS, Gate, OUTBOX, SET_ASIDE, SOON, Scene, Stop, events, metric, start, until_metric,
};

#[tokio::test]
async fn a_zombie_with_claims_in_hand_makes_its_successor_wait_and_changes_nothing() -> anyhow::Result<()> {
    // given: an owner that stands still inside its transaction, with claims in hand
    let scene = Scene::new("zombie", 1).await?;
    let patient = scene
        .service("zombie")
        .set("DATABASE__LOCK_TIMEOUT_MS", 50_000)
        .set("INTAKE__ATTEMPT_TIMEOUT_MS", 55_000)
        .set("DATABASE__IDLE_IN_TRANSACTION_TIMEOUT_MS", 1_000);
    let zombie = start(&patient).await?;
    scene.send(events(30, 3)).await?;
    scene.until_passed().await?;
    let mut gate = Gate::close(&scene, Stop::BeforeOutbox).await?;
    scene.send(events(30, 3)).await?;
    gate.until_somebody_waits().await?;
    zombie.freeze()?;

    // when: its partition moves, and the new owner meets its claims
    let successor = start(&scene.service("successor").set("DATABASE__LOCK_TIMEOUT_MS", 500)).await?;
    until_metric(&successor, r#"triage_attempts_total{result="lock_timeout"}"#, 2).await?;
    let while_waiting = (scene.number(CLAIMS).await?, scene.number(OUTBOX).await?);
    gate.open().await?; // the statement ends, and the server waits for a client that does nothing

    // then: the server ends the zombie, and the successor decides all of it
    scene.until(DECISIONS, |count| count == 60).await?;
    scene.until_passed().await?;
    assert_eq!(while_waiting, (30, 30));
    assert_eq!(metric(&successor, "triage_duplicates_total").await?, 0);
    let newest = "select max(id) from outbox_events";
    let before = scene.number(newest).await?;

    // when: the zombie wakes up
    zombie.thaw()?;
    wait::until("the zombie to be back in its group", SOON, || async {
        let lost = metric(&zombie, r#"triage_rebalances_total{kind="lost"}"#).await?;
        Ok(Seen::when(lost, |lost| *lost > 0))
    })
    .await?;

    // then: it changes nothing, and both go on
    assert_eq!(
        (scene.number(newest).await?, scene.number(DECISIONS).await?),
        (before, 60)
    );
    scene.send(events(30, 3)).await?;
    scene.until_passed().await?;
    assert_eq!(
        (scene.number(DECISIONS).await?, scene.number(SET_ASIDE).await?),
        (90, 0)
    );
    scene.end(vec![zombie, successor]).await?;
    Ok(())
}

#[tokio::test]
async fn a_zombie_that_commits_after_all_is_found_by_its_successor() -> anyhow::Result<()> {
    // given: an owner that stands still inside its COMMIT
    let scene = Scene::new("late_commit", 1).await?;
    let patient = scene
        .service("zombie")
        .set("DATABASE__LOCK_TIMEOUT_MS", 50_000)
        .set("INTAKE__ATTEMPT_TIMEOUT_MS", 55_000);
    let zombie = start(&patient).await?;
    let mut gate = Gate::close(&scene, Stop::InsideCommit).await?;
    scene.send(events(30, 3)).await?;
    gate.until_somebody_waits().await?;
    zombie.freeze()?;

    // when: its successor waits for its claims, and then the commit counts
    let successor = start(&scene.service("successor").set("DATABASE__LOCK_TIMEOUT_MS", 500)).await?;
    until_metric(&successor, r#"triage_attempts_total{result="lock_timeout"}"#, 2).await?;
    let while_waiting = scene.number(CLAIMS).await?;
    gate.open().await?;
    scene.send(events(30, 3)).await?;
    scene.until_passed().await?;

    // then: the successor knows the zombie's decisions, and goes on behind them
    assert_eq!(while_waiting, 0);
    assert_eq!(metric(&successor, "triage_duplicates_total").await?, 30);
    assert_eq!(metric(&successor, "triage_decisions_total").await?, 30);
    assert_eq!((scene.number(DECISIONS).await?, scene.number(OUTBOX).await?), (60, 60));
    zombie.thaw()?;
    scene.end(vec![zombie, successor]).await?;
    Ok(())
}

#[tokio::test]
async fn one_event_on_partitions_of_two_members_is_decided_once() -> anyhow::Result<()> {
    // given: two members with two partitions each
    let scene = Scene::new("two_members", 4).await?;
    let members = [scene.start("first").await?, scene.start("second").await?];
    for member in &members {
        wait::until("two partitions each", SOON, || async {
            let held = metric(member, "triage_assigned_partitions").await?;
            Ok(Seen::when(held, |held| *held == 2))
        })
        .await?;
    }

    // when: each event comes on every partition, all at the same time
    for _ in 0..5 {
        let once = events(200, 200);
        let everywhere = (0..4).flat_map(|partition| {
            once.iter().cloned().map(move |record| Record {
                partition: Some(partition),
                ..record
            })
        });
        scene.send(everywhere.collect()).await?;
    }
    scene.until_passed().await?;

    // then: both have met every event twice, and one of them, whoever came first, has decided it
    let mut decided_by_both = 0;
    for member in &members {
        let decided = metric(member, "triage_decisions_total").await?;
        let duplicates = metric(member, "triage_duplicates_total").await?;
        assert_eq!(decided + duplicates, 2_000);
        assert_eq!(metric(member, "triage_payload_mismatches_total").await?, 0);
        decided_by_both += decided;
    }
    assert_eq!(decided_by_both, 1_000);
    assert_eq!(scene.number(DECISIONS).await?, 1_000);
    scene.end(members.into()).await?;
    Ok(())
}

#[tokio::test]
async fn members_join_and_leave_under_load_and_nothing_is_delivered_twice() -> anyhow::Result<()> {
    // given
    let scene = Arc::new(Scene::new("join_and_leave", 6).await?);
    let first = scene.start("first").await?;
    let second = scene.start("second").await?;
    let load = Load::start(&scene);
    load.more(300).await?;

    // when: a third joins and, some time after it has its share, the first leaves
    let third = scene.start("third").await?;
    until_metric(&third, "triage_assigned_partitions", 2).await?;
    until_metric(&third, "triage_decisions_total", 50).await?;
    let by_first = metric(&first, "triage_duplicates_total").await?;
    scene::drain(vec![first]).await?;
    load.more(300).await?;
    let sent = load.stop().await? as i64;
    scene.until_passed().await?;

    // then: each record was handled by one of them only
    let suppressed = [
        metric(&second, "triage_duplicates_total").await?,
        metric(&third, "triage_duplicates_total").await?,
    ];
    assert_eq!(
        (by_first, suppressed),
        (0, [0, 0]),
        "an orderly hand-over delivers nothing again"
    );
    assert_eq!(
        (scene.number(CLAIMS).await?, scene.number(DECISIONS).await?),
        (sent, sent)
    );
    let scene = Arc::into_inner(scene).expect("the load has ended");
    let verdict = scene.end(vec![second, third]).await?;
    assert_eq!(verdict.duplicates_suppressed, 0);
    Ok(())
}

#[tokio::test]
async fn sigterm_finishes_what_is_in_flight_and_commits_its_offsets() -> anyhow::Result<()> {
    // given: a service with more to do than it can finish at once
    let scene = Scene::new("drain", 3).await?;
    let service = scene
        .service("triage")
        .set("INTAKE__BATCH_RECORDS", 10)
        .set("KAFKA__PROPERTIES__AUTO_COMMIT_INTERVAL_MS", 600_000);
    let service = start(&service).await?;
    scene.send(events(3_000, 30)).await?;
    scene.until(CLAIMS, |count| count >= 50).await?;

    // when
    scene::drain(vec![service]).await?;

    // then: the committed offsets say exactly what is claimed
    let mut connection = scene.connect().await?;
    let claimed: Vec<(i32, i64, i64)> = sqlx::query_as(
        "select kafka_partition, max(kafka_offset) + 1, count(*) from processed_events group by 1 order by 1",
    )
    .fetch_all(&mut connection)
    .await?;
    let expected: BTreeMap<i32, i64> = claimed.iter().map(|(partition, next, _)| (*partition, *next)).collect();
    let committed: BTreeMap<i32, i64> = scene
        .committed()
        .await?
        .into_iter()
        .filter_map(|partition| Some((partition.partition, partition.offset?)))
        .collect();
    assert_eq!(committed, expected);
    assert!(
        claimed.iter().all(|(_, next, count)| next == count),
        "a hole below the watermark: {claimed:?}"
    );

    // and: the next one goes on there
    let next = scene.start("next").await?;
    scene.until_passed().await?;
    assert_eq!(metric(&next, "triage_duplicates_total").await?, 0);
    assert_eq!(scene.number(DECISIONS).await?, 3_000);
    scene.end(vec![next]).await?;
    Ok(())
}

/// Writes new events until it is told to stop.
pub(super) struct Load {
    stop: CancellationToken,
    sent: Arc<AtomicUsize>,
    writer: JoinHandle<anyhow::Result<()>>,
}

impl Load {
    pub(super) fn start(scene: &Arc<Scene>) -> Self {
        let (stop, sent) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let (scene, is_over, counter) = (Arc::clone(scene), stop.clone(), Arc::clone(&sent));
        let writer = tokio::spawn(async move {
            while !is_over.is_cancelled() {
                scene.send(events(40, 40)).await?;
                counter.fetch_add(40, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            Ok(())
        });
        Self { stop, sent, writer }
    }

    /// Waits until so many more events were written.
    pub(super) async fn more(&self, count: usize) -> anyhow::Result<()> {
        let goal = self.sent.load(Ordering::SeqCst) + count;
        wait::until("the load to go on", SOON, || async {
            Ok(Seen::when(self.sent.load(Ordering::SeqCst), |now| *now >= goal))
        })
        .await?;
        Ok(())
    }

    /// Ends the load; how many events it has written.
    pub(super) async fn stop(self) -> anyhow::Result<usize> {
        self.stop.cancel();
        self.writer.await??;
        Ok(self.sent.load(Ordering::SeqCst))
    }
}
