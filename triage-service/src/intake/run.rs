//! The loop around the state machine: facts from Kafka and from transactions, steps back to them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use chrono::Utc;
use shared::health::Health;
use shared::retry::Backoff;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::domain::record::Record;
use crate::metrics::Metrics;

use super::attempt::{Tally, Triage, attempt};
use super::batch::{Batch, BatchId, Piece};
use super::inbox::Inbox;
use super::{Assignment, Fact, Intake, RevokeId, Step, Verdict};

/// With enough at hand an arrival waits for transactions to end, so that what the client has fetched waits there and
/// need not be fetched again after a pause. No longer than this: a rebalance may be behind it.
const HELD_AT_MOST: Duration = Duration::from_millis(100);

/// Part of the service's health: the store.
pub const PART_POSTGRES: &str = "postgres";
/// Part of the service's health: whether batches end.
pub const PART_PROGRESS: &str = "progress";

/// The consumer, as far as the loop steers it. No call waits for a broker.
pub trait Partitions: Send + 'static {
    /// A transaction has committed after so long: records that come one by one need not come sooner.
    fn committed(&self, took: Duration);

    /// Stops fetching from these partitions.
    fn pause(&self, partitions: &[i32]);

    /// Fetches from these partitions again.
    fn resume(&self, partitions: &[i32]);

    /// Stores the offset to go on at, unless the partition has another assignment by now.
    fn store(&self, partition: i32, assignment: Assignment, offset: i64);
}

/// What the consumer sends, in the order it happened.
#[derive(Debug)]
pub enum Arrival {
    /// Partitions are ours from now on.
    Assigned(Vec<(i32, Assignment)>),
    /// Records, in the order of their offsets in each partition.
    Records(Vec<Record>),
    /// Partitions are to be given back. The consumer waits for the answer, but not for ever.
    Revoking {
        /// Which ones.
        partitions: Vec<i32>,
        /// Told once they are drained.
        answer: SyncSender<()>,
    },
    /// Partitions are gone: taken away, or not drained in time.
    Lost(Vec<i32>),
    /// The client cannot go on.
    Failed(String),
}

/// Settings of the loop.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Pauses between attempts of a batch while the store is in trouble.
    pub retry: Backoff,
    /// Longest time of one transaction; after it, its result counts as unknown.
    pub attempt_timeout: Duration,
    /// Longest drain at shutdown.
    pub drain_timeout: Duration,
    /// Without a commit for so long while there is work, the service is not ready.
    pub stall: Duration,
}

/// Why the loop ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The consumer cannot go on.
    #[error("the consumer failed: {0}")]
    Consumer(String),
    /// The consumer's thread is gone.
    #[error("the consumer ended by itself")]
    ConsumerEnded,
    /// Something that must hold did not; it is in the log.
    #[error("a transaction's task panicked")]
    Broken(#[source] tokio::task::JoinError),
}

/// The loop and what it stands between.
pub struct Runner<I, P> {
    /// The state machine.
    pub intake: Intake,
    /// The store.
    pub inbox: Arc<I>,
    /// The consumer.
    pub partitions: P,
    /// What happens inside a transaction.
    pub triage: Arc<Triage>,
    /// Settings.
    pub pace: Pace,
    /// Counters.
    pub metrics: Metrics,
    /// Where the store and the progress are told of.
    pub health: Health,
    /// Rung after a commit that wrote to the outbox.
    pub ring: Box<dyn Fn() + Send>,
}

enum Ended {
    Attempt {
        id: BatchId,
        verdict: Verdict,
        tally: Tally,
        records: usize,
        elapsed: Duration,
    },
    Pause(BatchId),
}

impl<I: Inbox, P: Partitions> Runner<I, P> {
    /// Runs until `shutdown`, then drains: transactions in flight end, nothing new begins.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing: what has not committed is delivered again.
    pub async fn run(
        self,
        mut arrivals: mpsc::Receiver<Arrival>,
        shutdown: CancellationToken,
    ) -> Result<(), IntakeError> {
        let mut running = Running {
            runner: self,
            tasks: JoinSet::new(),
            answers: HashMap::new(),
            revokes: 0,
            is_drained: false,
        };
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut deadline, mut last_progress) = (None, Instant::now());
        let mut held_until = Instant::now();
        while !running.is_drained {
            let is_held = running.runner.intake.is_stocked();
            if !is_held {
                held_until = Instant::now() + HELD_AT_MOST;
            }
            let is_held = is_held && Instant::now() < held_until;
            tokio::select! {
                biased;
                () = shutdown.cancelled(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + running.runner.pace.drain_timeout);
                    running.note(Fact::Draining);
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    warn!("{} batches still in flight at the end of the drain: they are delivered again", running.runner.intake.in_flight());
                    break;
                }
                Some(ended) = running.tasks.join_next(), if !running.tasks.is_empty() => {
                    if running.ended(ended.map_err(IntakeError::Broken)?) {
                        last_progress = Instant::now();
                    }
                }
                _ = ticks.tick() => {
                    if running.runner.intake.in_flight() == 0 {
                        last_progress = Instant::now();
                    }
                    running.tell_progress(last_progress.elapsed());
                }
                arrival = arrivals.recv(), if !is_held => {
                    held_until = Instant::now() + HELD_AT_MOST;
                    running.arrived(arrival.ok_or(IntakeError::ConsumerEnded)?)?;
                }
                () = sleep_until(held_until), if is_held => {}
            }
        }
        Ok(())
    }
}

struct Running<I, P> {
    runner: Runner<I, P>,
    tasks: JoinSet<Ended>,
    answers: HashMap<RevokeId, SyncSender<()>>,
    revokes: u64,
    is_drained: bool,
}

impl<I: Inbox, P: Partitions> Running<I, P> {
    fn arrived(&mut self, arrival: Arrival) -> Result<(), IntakeError> {
        let metrics = &self.runner.metrics;
        match arrival {
            Arrival::Assigned(partitions) => {
                info!(
                    "assigned partitions {:?}",
                    partitions.iter().map(|(partition, _)| partition).collect::<Vec<_>>()
                );
                metrics
                    .rebalances
                    .with_label_values(&["assigned"])
                    .inc_by(partitions.len() as u64);
                for (partition, assignment) in partitions {
                    self.note(Fact::Assigned { partition, assignment });
                }
            }
            Arrival::Records(records) => {
                metrics.records.inc_by(records.len() as u64);
                self.note(Fact::Received(records));
            }
            Arrival::Revoking { partitions, answer } => {
                info!("giving back partitions {partitions:?}");
                metrics
                    .rebalances
                    .with_label_values(&["revoked"])
                    .inc_by(partitions.len() as u64);
                self.revokes += 1;
                let revoke = RevokeId(self.revokes);
                self.answers.insert(revoke, answer);
                self.note(Fact::Revoking { revoke, partitions });
            }
            Arrival::Lost(partitions) => {
                warn!("lost partitions {partitions:?}");
                metrics
                    .rebalances
                    .with_label_values(&["lost"])
                    .inc_by(partitions.len() as u64);
                self.note(Fact::Lost(partitions));
            }
            Arrival::Failed(reason) => return Err(IntakeError::Consumer(reason)),
        }
        self.runner
            .metrics
            .assigned_partitions
            .set(self.runner.intake.open_records().count() as i64);
        Ok(())
    }

    /// True if a transaction committed.
    fn ended(&mut self, ended: Ended) -> bool {
        let Ended::Attempt {
            id,
            verdict,
            tally,
            records,
            elapsed,
        } = ended
        else {
            let Ended::Pause(id) = ended else {
                return false;
            };
            self.note(Fact::RetryDue(id));
            return false;
        };
        let metrics = &self.runner.metrics;
        metrics.attempts.with_label_values(&[result(&verdict)]).inc();
        let is_committed = verdict == Verdict::Committed;
        if is_committed {
            metrics.batch_records.observe(records as f64);
            metrics.batch_seconds.observe(elapsed.as_secs_f64());
            self.runner.partitions.committed(elapsed);
            metrics.count(&tally);
            log(&tally);
            if !tally.decisions.is_empty() || !tally.dead_letters.is_empty() {
                (self.runner.ring)();
            }
        }
        match &verdict {
            Verdict::Unavailable(trouble) | Verdict::Unclear(trouble) => {
                let reason = format!("transactions fail, trying again for ever: {trouble}");
                self.runner.health.not_ready(PART_POSTGRES, reason);
            }
            Verdict::Committed
            | Verdict::TakeOver(_)
            | Verdict::DataError(_)
            | Verdict::ClaimGone
            | Verdict::LockTimeout => {
                self.runner.health.ready(PART_POSTGRES);
            }
        }
        self.note(Fact::Attempted { batch: id, verdict });
        is_committed
    }

    fn note(&mut self, fact: Fact) {
        for step in self.runner.intake.note(fact) {
            match step {
                Step::Attempt { id, batch, piece } => {
                    let (inbox, triage) = (Arc::clone(&self.runner.inbox), Arc::clone(&self.runner.triage));
                    self.tasks.spawn(bounded_attempt(
                        inbox,
                        triage,
                        id,
                        batch,
                        piece,
                        self.runner.pace.attempt_timeout,
                    ));
                }
                Step::Retry { id, attempts } => {
                    let pause = self.runner.pace.retry.pause(attempts, rand::random());
                    debug!("attempt {attempts} failed, next in {pause:?}");
                    self.tasks.spawn(async move {
                        tokio::time::sleep(pause).await;
                        Ended::Pause(id)
                    });
                }
                Step::Store {
                    partition,
                    assignment,
                    offset,
                } => self.runner.partitions.store(partition, assignment, offset),
                Step::Pause(partitions) => {
                    self.runner.metrics.pauses.inc_by(partitions.len() as u64);
                    self.runner.partitions.pause(&partitions);
                }
                Step::Resume(partitions) => self.runner.partitions.resume(&partitions),
                Step::Answer(revoke) => {
                    if let Some(answer) = self.answers.remove(&revoke) {
                        let _ = answer.try_send(()); // whoever asked may have stopped waiting
                    }
                }
                Step::Drained => self.is_drained = true,
            }
        }
    }

    fn tell_progress(&self, since: Duration) {
        if since < self.runner.pace.stall {
            self.runner.health.ready(PART_PROGRESS);
        } else {
            let batches = self.runner.intake.in_flight();
            self.runner.health.not_ready(
                PART_PROGRESS,
                format!("{batches} batches in flight, none has committed for a while"),
            );
        }
    }
}

async fn bounded_attempt<I: Inbox>(
    inbox: Arc<I>,
    triage: Arc<Triage>,
    id: BatchId,
    batch: Arc<Batch>,
    piece: Piece,
    limit: Duration,
) -> Ended {
    let begun_at = Instant::now();
    let attempted = timeout(limit, attempt(&*inbox, &triage, &batch, &piece, Utc::now())).await;
    let (verdict, tally) = attempted.unwrap_or_else(|_| {
        warn!(
            "transaction of {} records given up after {limit:?}",
            piece.records.len()
        );
        (
            Verdict::Unclear(format!("no answer within {limit:?}")),
            Tally::default(),
        )
    });
    Ended::Attempt {
        id,
        verdict,
        tally,
        records: piece.records.len(),
        elapsed: begun_at.elapsed(),
    }
}

fn log(tally: &Tally) {
    for dead_letter in &tally.dead_letters {
        let (id, source, set_aside) = (
            dead_letter.event_id.as_uuid(),
            &dead_letter.source,
            &dead_letter.set_aside,
        );
        warn!(event.id = %id, reason = set_aside.reason.code(), record = %source,
              "dead-lettered record {source}: {}", set_aside.message);
    }
    for mismatch in &tally.mismatches {
        let (id, record, decided) = (mismatch.event_id.as_uuid(), &mismatch.record, &mismatch.decided);
        warn!(event.id = %id, record = %record, decided = %decided,
              "record {record} repeats event {id} with another body; decided was {decided}");
    }
}

const fn result(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Committed => "committed",
        Verdict::TakeOver(_) => "take_over",
        Verdict::DataError(_) => "data_error",
        Verdict::ClaimGone => "claim_gone",
        Verdict::LockTimeout => "lock_timeout",
        Verdict::Unavailable(_) => "unavailable",
        Verdict::Unclear(_) => "unclear",
    }
}
