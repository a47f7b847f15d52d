//! A process of the service: the real intake, its attempts, and the consumer's thread beside it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use chrono::{DateTime, Utc};
use shared::id::EventId;
use triage_service::domain::record::Record;
use triage_service::intake::attempt::{Tally, Triage, attempt};
use triage_service::intake::batch::{Batch, BatchId, Piece};
use triage_service::intake::{Assignment, Fact, Intake, RevokeId, Step, Verdict};

use crate::intake::inbox::{Connection, SharedStore};

/// One process from its start to its end.
pub(crate) struct Member {
    pub(crate) is_alive: bool,
    /// Number of its membership; offsets of an older one are refused.
    pub(crate) epoch: u64,
    /// Whether the group still knows it. It may be the last to hear that it does not.
    pub(crate) is_valid: bool,
    pub(crate) is_draining: bool,
    pub(crate) is_drained: bool,
    pub(crate) intake: Intake,
    /// What the consumer's thread has sent and the loop has not taken.
    pub(crate) arrivals: VecDeque<Fact>,
    pub(crate) attempts: BTreeMap<BatchId, Attempt>,
    pub(crate) pauses: Vec<BatchId>,
    pub(crate) held: BTreeMap<i32, Held>,
    pub(crate) revoking: Option<Revoking>,
    pub(crate) revokes: u64,
    /// What its host takes the time to be.
    pub(crate) clock: DateTime<Utc>,
    store: SharedStore,
    triage: Arc<Triage>,
}

/// A transaction under way.
pub(crate) struct Attempt {
    future: Pin<Box<dyn Future<Output = (Verdict, Tally)> + Send>>,
    pub(crate) transaction: usize,
    pub(crate) partitions: Vec<i32>,
    /// Records whose id stands earlier in the same transaction.
    pub(crate) repeated: usize,
}

/// What an attempt ended with.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) verdict: Verdict,
    pub(crate) tally: Tally,
    /// As in [`Attempt`].
    pub(crate) repeated: usize,
}

/// A partition, as the consumer's thread sees it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) assignment: Assignment,
    /// The entry of the log that is fetched next.
    pub(crate) next: usize,
    pub(crate) stored: Option<i64>,
    /// The offset that the group is known to have.
    pub(crate) acknowledged: i64,
    pub(crate) is_paused: bool,
}

/// Partitions that are being given back; the consumer's thread does nothing else meanwhile.
#[derive(Debug)]
pub(crate) struct Revoking {
    pub(crate) id: RevokeId,
    pub(crate) partitions: Vec<i32>,
    pub(crate) is_answered: bool,
}

impl Member {
    pub(crate) fn new(epoch: u64, intake: Intake, store: SharedStore, triage: Arc<Triage>) -> Self {
        Self {
            is_alive: true,
            epoch,
            is_valid: true,
            is_draining: false,
            is_drained: false,
            intake,
            arrivals: VecDeque::new(),
            attempts: BTreeMap::new(),
            pauses: Vec::new(),
            held: BTreeMap::new(),
            revoking: None,
            revokes: 0,
            clock: DateTime::from_timestamp(1_700_000_000, 0).expect("a time of this century"),
            store,
            triage,
        }
    }

    /// Tells the intake, and does what it says.
    pub(crate) fn note(&mut self, fact: Fact) {
        for step in self.intake.note(fact) {
            match step {
                Step::Attempt { id, batch, piece } => self.begin(id, batch, piece),
                Step::Retry { id, .. } => self.pauses.push(id),
                Step::Store {
                    partition,
                    assignment,
                    offset,
                } => {
                    if let Some(held) = self
                        .held
                        .get_mut(&partition)
                        .filter(|held| held.assignment == assignment)
                    {
                        held.stored = Some(offset);
                    }
                }
                Step::Pause(partitions) => self.pause(&partitions, true),
                Step::Resume(partitions) => self.pause(&partitions, false),
                Step::Answer(id) => {
                    if let Some(revoking) = self.revoking.as_mut().filter(|revoking| revoking.id == id) {
                        revoking.is_answered = true;
                    }
                }
                Step::Drained => self.is_drained = true,
            }
        }
    }

    fn pause(&mut self, partitions: &[i32], is_paused: bool) {
        for partition in partitions {
            if let Some(held) = self.held.get_mut(partition) {
                held.is_paused = is_paused;
            }
        }
    }

    fn begin(&mut self, id: BatchId, batch: Arc<Batch>, piece: Piece) {
        let transaction = self.store.lock().open();
        let mut partitions: Vec<i32> = piece
            .records
            .iter()
            .map(|&at| batch.records()[at as usize].at.partition)
            .collect();
        partitions.dedup();
        self.store.lock().transactions[transaction]
            .partitions
            .clone_from(&partitions);
        let readings = batch.readings(&self.triage.accepted);
        let ids: BTreeSet<EventId> = piece.records.iter().map(|&at| readings[at as usize].event_id).collect();
        let repeated = piece.records.len() - ids.len();
        let connection = Connection {
            store: self.store.clone(),
            transaction,
        };
        let (triage, now) = (Arc::clone(&self.triage), self.clock);
        let future = Box::pin(async move { attempt(&connection, &triage, &batch, &piece, now).await });
        self.attempts.insert(
            id,
            Attempt {
                future,
                transaction,
                partitions,
                repeated,
            },
        );
        let is_pending = self.poll(id).is_none();
        assert!(is_pending, "a transaction begins with a statement");
    }

    /// Lets an attempt go on with the answer it waits for. What it ended with, if it did.
    pub(crate) fn poll(&mut self, id: BatchId) -> Option<Ended> {
        let attempt = self.attempts.get_mut(&id)?;
        match attempt.future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready((verdict, tally)) => {
                let repeated = attempt.repeated;
                self.attempts.remove(&id);
                Some(Ended {
                    verdict,
                    tally,
                    repeated,
                })
            }
            Poll::Pending => None,
        }
    }

    /// Drops an attempt where it stands; its transaction is left to the server.
    pub(crate) fn abandon(&mut self, id: BatchId) {
        if let Some(attempt) = self.attempts.remove(&id) {
            self.store.lock().orphan(attempt.transaction);
        }
    }

    /// The process ends here.
    pub(crate) fn die(&mut self) {
        while let Some(&id) = self.attempts.keys().next() {
            self.abandon(id);
        }
        self.is_alive = false;
        self.arrivals.clear();
        self.pauses.clear();
        self.held.clear();
        self.revoking = None;
    }

    /// Records of partitions that are held, as one chunk.
    pub(crate) fn receive(&mut self, records: Vec<Record>) {
        self.arrivals.push_back(Fact::Received(records));
    }

    /// Nothing is left to do.
    pub(crate) fn is_at_rest(&self) -> bool {
        let is_idle = self.arrivals.is_empty() && self.attempts.is_empty() && self.pauses.is_empty();
        self.is_alive && self.is_valid && is_idle && self.revoking.is_none() && self.intake.in_flight() == 0
    }
}
