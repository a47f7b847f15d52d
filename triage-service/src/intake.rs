//! The intake: from records to committed decisions, in order, and back to offsets.
//!
//! [`Intake`] is a state machine without IO: facts in, next steps out, so that a seeded simulation can
//! drive it through every interleaving. [`run`] puts it between Kafka and Postgres. [`attempt`] is what
//! happens inside one transaction.
//!
//! A partition has at most one batch in flight and a batch is handled piece by piece in the order of its
//! offsets, so the order of each key is kept. A batch closes when it is full or when nothing more is
//! buffered: a lone record waits for nobody, and under load batches grow by themselves.

mod assignments;
pub mod attempt;
pub mod batch;
mod flight;
pub mod inbox;
pub mod run;
pub mod safeguards;
#[cfg(test)]
mod tests;
mod watermark;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::domain::record::Record;

use assignments::Assignments;
use batch::{Batch, BatchId, Claiming, Piece};
use flight::{Flight, Phase};
use safeguards::{Safeguard, Safeguards};

/// Number of an assignment of a partition to this process; never used twice by one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Assignment(pub u64);

/// Number of a revoke, to answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevokeId(pub u64);

/// Bounds of the intake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Transactions at a time.
    pub workers: usize,
    /// Most records of one batch.
    pub batch_records: usize,
    /// Most bytes of one batch, except that one record is always taken.
    pub batch_bytes: usize,
    /// Records buffered over all partitions before they are paused.
    pub buffer_records: usize,
    /// Bytes buffered over all partitions before they are paused.
    pub buffer_bytes: usize,
}

/// What the intake is told.
#[derive(Debug)]
pub enum Fact {
    /// A partition is ours from now on.
    Assigned {
        /// Which partition.
        partition: i32,
        /// The number of this assignment.
        assignment: Assignment,
    },
    /// Records of assigned partitions, in the order of their offsets.
    Received(Vec<Record>),
    /// Partitions are to be given back, once their transactions have ended.
    Revoking {
        /// To be named in the answer.
        revoke: RevokeId,
        /// Which partitions.
        partitions: Vec<i32>,
    },
    /// Partitions are no longer ours.
    Lost(Vec<i32>),
    /// A transaction has ended.
    Attempted {
        /// The batch.
        batch: BatchId,
        /// How it ended.
        verdict: Verdict,
    },
    /// The pause before another attempt is over.
    RetryDue(BatchId),
    /// Finish what is in flight and take nothing new.
    Draining,
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is known to have committed.
    Committed,
    /// Nothing is stored: these records take over claims of records that were set aside.
    TakeOver(Vec<u32>),
    /// Nothing is stored: the data of an event is at fault.
    DataError(String),
    /// Nothing is stored: a claim that stood in the way is gone.
    ClaimGone,
    /// Nothing is stored: somebody else holds a claim and does not end.
    LockTimeout,
    /// Nothing is stored: the store is in trouble, of which this is what it said.
    Unavailable(String),
    /// Whether it is stored is not known, and why not.
    Unclear(String),
}

/// What is to be done next.
#[derive(Debug)]
pub enum Step {
    /// Attempt a piece in a transaction; answer with [`Fact::Attempted`].
    Attempt {
        /// The batch.
        id: BatchId,
        /// Its records.
        batch: Arc<Batch>,
        /// Which of them.
        piece: Piece,
    },
    /// Wait before another attempt; answer with [`Fact::RetryDue`].
    Retry {
        /// The batch.
        id: BatchId,
        /// How often it failed in a row, counted from 1.
        attempts: u32,
    },
    /// Store an offset to be committed, if the assignment is still the partition's.
    Store {
        /// The partition.
        partition: i32,
        /// The assignment it belongs to.
        assignment: Assignment,
        /// The offset to go on at.
        offset: i64,
    },
    /// Stop fetching.
    Pause(Vec<i32>),
    /// Fetch again.
    Resume(Vec<i32>),
    /// The partitions of a revoke are drained and their offsets stored.
    Answer(RevokeId),
    /// Nothing is in flight any more.
    Drained,
}

/// The state of the intake.
#[derive(Debug)]
pub struct Intake {
    limits: Limits,
    safeguards: Safeguards,
    assignments: Assignments,
    flights: BTreeMap<BatchId, Flight>,
    batches: u64,
    revokes: Vec<(RevokeId, Vec<i32>)>,
    drain: Drain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    Not,
    Wanted,
    Told,
}

impl Intake {
    /// An intake without partitions.
    pub fn new(limits: Limits, safeguards: Safeguards) -> Self {
        Self {
            limits,
            safeguards,
            assignments: Assignments::default(),
            flights: BTreeMap::new(),
            batches: 0,
            revokes: Vec::new(),
            drain: Drain::Not,
        }
    }

    /// Takes note of a fact. Says what is to be done next, in this order.
    pub fn note(&mut self, fact: Fact) -> Vec<Step> {
        let mut steps = Vec::new();
        match fact {
            Fact::Assigned { partition, assignment } => {
                self.assignments.begin(partition, assignment);
                if self.drain == Drain::Not {
                    steps.push(Step::Resume(vec![partition])); // a pause may have outlived the assignment before
                } else {
                    self.assignments.leave(&[partition]);
                }
            }
            Fact::Received(records) => self.assignments.receive(records),
            Fact::Revoking { revoke, partitions } => {
                self.assignments.leave(&partitions);
                self.revokes.push((revoke, partitions));
            }
            Fact::Lost(partitions) => self.assignments.end(&partitions),
            Fact::Attempted { batch, verdict } => self.settle(batch, verdict, &mut steps),
            Fact::RetryDue(batch) => {
                if let Some(flight) = self.flights.get_mut(&batch) {
                    flight.phase = Phase::Ready;
                }
            }
            Fact::Draining => {
                self.assignments.leave_all();
                self.drain = Drain::Wanted;
            }
        }
        self.strip();
        self.answer(&mut steps);
        self.start(&mut steps);
        self.throttle(&mut steps);
        steps
    }

    /// Batches in flight, those that wait for another attempt included.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Records received and not passed by the watermark, by partition.
    pub fn open_records(&self) -> impl Iterator<Item = (i32, usize)> {
        self.assignments
            .iter()
            .map(|(partition, held)| (partition, held.watermark.open_count()))
    }

    /// Whether there is enough for the transactions after those that run: what has not come yet may wait for them,
    /// where the client keeps it. A quarter of the buffers is enough.
    pub fn is_stocked(&self) -> bool {
        self.running() > 0 && self.assignments.use_more_than(&self.limits, 4)
    }

    fn settle(&mut self, id: BatchId, verdict: Verdict, steps: &mut Vec<Step>) {
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        let Phase::Running(piece) = std::mem::replace(&mut flight.phase, Phase::Ready) else {
            return;
        };
        match verdict {
            Verdict::Committed => self.pass(id, &piece, steps),
            Verdict::Unclear(_) if !self.safeguards.hold(Safeguard::RetryUnclearCommits) => {
                self.pass(id, &piece, steps)
            }
            Verdict::TakeOver(records) => flight.put_back(piece.divide(&records)),
            Verdict::DataError(code) => match &piece.records[..] {
                // What is written for a record set aside is our own: its trouble is no longer the event's.
                [_] if piece.data_error.is_some() => flight.wait(id, piece, self.safeguards, steps),
                [_] => flight.put_back([Piece {
                    data_error: Some(code),
                    ..piece
                }]),
                _ => flight.put_back(piece.halve(&flight.batch, self.safeguards)),
            },
            Verdict::LockTimeout if flight.owners.len() > 1 => {
                flight.put_back([piece]);
                self.split_by_partition(id);
            }
            Verdict::ClaimGone => {
                // Whoever held the claim is gone, so it is free: begin with an ordinary claim again.
                flight.wait(
                    id,
                    Piece {
                        claiming: Claiming::Insert,
                        ..piece
                    },
                    self.safeguards,
                    steps,
                );
            }
            Verdict::LockTimeout | Verdict::Unavailable(_) | Verdict::Unclear(_) => {
                flight.wait(id, piece, self.safeguards, steps);
            }
        }
    }

    /// Notes that the records of a piece are done, and stores the offsets that this allows.
    fn pass(&mut self, id: BatchId, piece: &Piece, steps: &mut Vec<Step>) {
        let flight = self.flights.get_mut(&id).expect("its caller has just seen it");
        flight.attempts = 0;
        let (batch, owners) = (Arc::clone(&flight.batch), flight.owners.clone());
        for (partition, assignment) in owners {
            let Some(held) = self.assignments.get_mut(partition) else {
                continue;
            };
            let records = || {
                piece
                    .records
                    .iter()
                    .copied()
                    .filter(|&index| batch.partition(index) == partition)
            };
            let last_offset = records()
                .next_back()
                .map(|index| batch.records()[index as usize].at.offset);
            let is_current = held.assignment == assignment;
            if is_current {
                records().for_each(|index| held.watermark.done(batch.sequence(index)));
            }
            let offset = if is_current && self.safeguards.hold(Safeguard::WatermarkWithoutHoles) {
                held.watermark.advance()
            } else if is_current || !self.safeguards.hold(Safeguard::DropOldResults) {
                last_offset.map(|offset| offset + 1) // only with a rule switched off
            } else {
                None // the result of an assignment that is over
            };
            if let Some(offset) = offset.filter(|_| self.safeguards.hold(Safeguard::StoreAfterCommit)) {
                steps.push(Step::Store {
                    partition,
                    assignment: held.assignment,
                    offset,
                });
            }
        }
    }

    /// The partitions of a combined batch go apart: the one whose claim is held must not stop the others.
    fn split_by_partition(&mut self, id: BatchId) {
        let Some(flight) = self.flights.remove(&id) else {
            return;
        };
        for (&partition, &assignment) in &flight.owners {
            let mut part = Flight {
                batch: Arc::clone(&flight.batch),
                owners: BTreeMap::from([(partition, assignment)]),
                pieces: flight.pieces.clone(),
                phase: Phase::Ready,
                attempts: flight.attempts,
            };
            part.retain(|batch, index| batch.partition(index) == partition);
            let id = self.next_id();
            self.flights.insert(id, part); // one without pieces is dropped with what is stripped
        }
    }

    /// Drops what is left of batches whose partitions are leaving or gone.
    fn strip(&mut self) {
        let assignments = &self.assignments;
        self.flights.retain(|_, flight| {
            let owners = flight.owners.clone();
            let is_live = |partition: &i32| assignments.is_live(*partition, owners[partition]);
            if !owners.keys().all(is_live) {
                flight.retain(|batch, index| is_live(&batch.partition(index)));
            }
            matches!(flight.phase, Phase::Running(_)) || !flight.pieces.is_empty()
        });
    }

    /// Answers the revokes whose partitions are in no transaction any more.
    fn answer(&mut self, steps: &mut Vec<Step>) {
        let (flights, assignments) = (&self.flights, &mut self.assignments);
        self.revokes.retain(|(revoke, partitions)| {
            let is_running = |&partition: &i32| {
                assignments
                    .get(partition)
                    .is_some_and(|held| flights.values().any(|f| f.is_running(partition, held.assignment)))
            };
            if partitions.iter().any(is_running) {
                return true;
            }
            assignments.end(partitions);
            steps.push(Step::Answer(*revoke));
            false
        });
        if self.drain == Drain::Wanted && self.running() == 0 {
            self.drain = Drain::Told;
            steps.push(Step::Drained);
        }
    }

    /// Starts what is ready, then forms batches, while there are workers.
    fn start(&mut self, steps: &mut Vec<Step>) {
        let mut free = self.limits.workers.saturating_sub(self.running());
        for (&id, flight) in &mut self.flights {
            if free == 0 {
                return;
            }
            if matches!(flight.phase, Phase::Ready) {
                steps.extend(flight.begin(id));
                free -= 1;
            }
        }
        while free > 0 {
            let busy: HashSet<(i32, Assignment)> = if self.safeguards.hold(Safeguard::OneBatchPerPartition) {
                self.flights
                    .values()
                    .flat_map(|flight| flight.owners.iter().map(|(&p, &a)| (p, a)))
                    .collect()
            } else {
                HashSet::new()
            };
            let Some((owners, entries)) = self.assignments.take_batch(&self.limits, &busy) else {
                return;
            };
            let batch = Arc::new(Batch::new(entries));
            if !self.safeguards.hold(Safeguard::StoreAfterCommit) {
                for record in batch.records() {
                    let (partition, assignment) = (record.at.partition, owners[&record.at.partition]);
                    steps.push(Step::Store {
                        partition,
                        assignment,
                        offset: record.at.offset + 1,
                    });
                }
            }
            let pieces = VecDeque::from([batch.whole()]);
            let id = self.next_id();
            let mut flight = Flight {
                batch,
                owners,
                pieces,
                phase: Phase::Ready,
                attempts: 0,
            };
            steps.extend(flight.begin(id));
            self.flights.insert(id, flight);
            free -= 1;
        }
    }

    /// Pauses partitions whose buffer is full or whose batch waits for the store; resumes the others.
    fn throttle(&mut self, steps: &mut Vec<Step>) {
        let waiting = self
            .flights
            .values()
            .filter(|flight| matches!(flight.phase, Phase::Waiting));
        let waiting: HashSet<(i32, Assignment)> = waiting
            .flat_map(|flight| flight.owners.iter().map(|(&p, &a)| (p, a)))
            .collect();
        let (pause, resume) = self.assignments.throttle(&self.limits, &waiting);
        if !pause.is_empty() {
            steps.push(Step::Pause(pause));
        }
        if !resume.is_empty() {
            steps.push(Step::Resume(resume));
        }
    }

    fn running(&self) -> usize {
        self.flights
            .values()
            .filter(|flight| matches!(flight.phase, Phase::Running(_)))
            .count()
    }

    fn next_id(&mut self) -> BatchId {
        self.batches += 1;
        BatchId(self.batches)
    }
}
