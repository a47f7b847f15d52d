//! A batch in flight: what is left of it, and what it waits for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::batch::{Batch, BatchId, Piece};
use super::safeguards::{Safeguard, Safeguards};
use super::{Assignment, Step};

/// A batch in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) batch: Arc<Batch>,
    /// The assignments that its records belong to.
    pub(super) owners: BTreeMap<i32, Assignment>,
    /// What is left, in order.
    pub(super) pieces: VecDeque<Piece>,
    pub(super) phase: Phase,
    pub(super) attempts: u32,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Waits for a worker.
    Ready,
    /// In a transaction.
    Running(Piece),
    /// Waits before another attempt; the store is in trouble.
    Waiting,
}

impl Flight {
    /// Takes the next piece into a transaction.
    pub(super) fn begin(&mut self, id: BatchId) -> Option<Step> {
        let piece = self.pieces.pop_front()?;
        self.phase = Phase::Running(piece.clone());
        Some(Step::Attempt {
            id,
            batch: Arc::clone(&self.batch),
            piece,
        })
    }

    /// Puts pieces before what is left.
    pub(super) fn put_back(&mut self, pieces: impl IntoIterator<Item = Piece, IntoIter: DoubleEndedIterator>) {
        for piece in pieces.into_iter().rev() {
            self.pieces.push_front(piece);
        }
    }

    /// Puts a piece back and waits before it is attempted again.
    pub(super) fn wait(&mut self, id: BatchId, piece: Piece, safeguards: Safeguards, steps: &mut Vec<Step>) {
        if safeguards.hold(Safeguard::PiecesInOrder) {
            self.pieces.push_front(piece);
        } else {
            self.pieces.push_back(piece);
        }
        self.attempts = self.attempts.saturating_add(1);
        self.phase = Phase::Waiting;
        steps.push(Step::Retry {
            id,
            attempts: self.attempts,
        });
    }

    /// Drops the records of the pieces to come of which `keep` is false.
    pub(super) fn retain(&mut self, keep: impl Fn(&Batch, u32) -> bool) {
        let batch = Arc::clone(&self.batch);
        for piece in &mut self.pieces {
            piece.retain(|&index| keep(&batch, index));
        }
        self.pieces.retain(|piece| !piece.records.is_empty());
    }

    /// Whether a record of that assignment is in a transaction.
    pub(super) fn is_running(&self, partition: i32, assignment: Assignment) -> bool {
        let Phase::Running(piece) = &self.phase else {
            return false;
        };
        self.owners.get(&partition) == Some(&assignment)
            && piece
                .records
                .iter()
                .any(|&index| self.batch.partition(index) == partition)
    }
}
