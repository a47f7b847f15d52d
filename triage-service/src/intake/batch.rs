//! A batch of records, and the pieces it is handled in.

use std::collections::HashSet;
use std::sync::OnceLock;

use crate::domain::case::{Accepted, Reading};
use crate::domain::record::Record;

use super::safeguards::{Safeguard, Safeguards};
use super::watermark::Sequence;

/// Number of a batch in flight; never used twice by one intake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub(crate) u64);

/// Records in (partition, order of delivery). Never changes; what is left of it is said by pieces.
#[derive(Debug)]
pub struct Batch {
    records: Vec<Record>,
    sequences: Vec<Sequence>,
    /// Read once, by whoever attempts the first piece: decoding is not the owner task's work.
    readings: OnceLock<Vec<Reading>>,
}

/// Some records of a batch, for one transaction. Indices into the batch, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which records.
    pub records: Vec<u32>,
    /// How their ids are claimed.
    pub claiming: Claiming,
    /// The code of the data error for which its one record is set aside.
    pub data_error: Option<String>,
}

/// How the ids of a piece are claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claiming {
    /// By inserting the claim.
    Insert,
    /// By taking over the claim of a record that was set aside. One record, in a transaction of its own.
    TakeOver,
}

impl Batch {
    pub(crate) fn new(entries: Vec<(Sequence, Record)>) -> Self {
        let (sequences, records) = entries.into_iter().unzip();
        Self {
            records,
            sequences,
            readings: OnceLock::new(),
        }
    }

    /// The records.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// What the records turned out to be.
    pub fn readings(&self, accepted: &Accepted) -> &[Reading] {
        self.readings.get_or_init(|| {
            self.records
                .iter()
                .map(|record| Reading::of(record, accepted))
                .collect()
        })
    }

    pub(crate) fn partition(&self, index: u32) -> i32 {
        self.records[index as usize].at.partition
    }

    pub(crate) fn sequence(&self, index: u32) -> Sequence {
        self.sequences[index as usize]
    }

    pub(crate) fn whole(&self) -> Piece {
        Piece::insert((0..u32::try_from(self.records.len()).expect("a batch is bounded")).collect())
    }

    /// Indices of records whose id stands earlier in the batch. Only for the rule that this would break.
    pub(crate) fn later_duplicates(&self, accepted: &Accepted) -> HashSet<u32> {
        let mut seen = HashSet::new();
        let readings = self.readings(accepted).iter().enumerate();
        readings
            .filter(|(_, reading)| !seen.insert(reading.event_id))
            .map(|(index, _)| index as u32)
            .collect()
    }
}

impl Piece {
    pub(crate) fn insert(records: Vec<u32>) -> Self {
        Self {
            records,
            claiming: Claiming::Insert,
            data_error: None,
        }
    }

    /// Two halves in (partition, offset) order: a half begins after the one before it has committed, so
    /// the order of each key is kept.
    pub(crate) fn halve(mut self, batch: &Batch, safeguards: Safeguards) -> [Self; 2] {
        if !safeguards.hold(Safeguard::BisectByOffset) {
            let readings = batch.readings.get().expect("a piece that failed was read before");
            self.records.sort_by_key(|&index| readings[index as usize].event_id);
        }
        let second = self.records.split_off(self.records.len() / 2);
        [self, Self::insert(second)]
    }

    /// The same records, those of `take_over` each in a piece of its own, in the same order.
    pub(crate) fn divide(self, take_over: &[u32]) -> Vec<Self> {
        let mut pieces: Vec<Self> = Vec::new();
        for index in self.records {
            if take_over.contains(&index) {
                let data_error = self.data_error.clone();
                pieces.push(Self {
                    records: vec![index],
                    claiming: Claiming::TakeOver,
                    data_error,
                });
            } else if let Some(last) = pieces.last_mut().filter(|piece| piece.claiming == Claiming::Insert) {
                last.records.push(index);
            } else {
                pieces.push(Self {
                    records: vec![index],
                    claiming: Claiming::Insert,
                    data_error: self.data_error.clone(),
                });
            }
        }
        pieces
    }

    /// Keeps the records of which `keep` is true.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&u32) -> bool) {
        self.records.retain(keep);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn halves_keep_the_order_and_lose_nothing(len in 2u32..500) {
            let batch = Batch::new(Vec::new());
            let piece = Piece::insert((0..len).collect());
            let [first, second] = piece.clone().halve(&batch, Safeguards::default());
            prop_assert!(!first.records.is_empty() && !second.records.is_empty());
            prop_assert_eq!([first.records, second.records].concat(), piece.records);
        }

        #[test]
        fn dividing_keeps_the_order_and_gives_each_take_over_a_transaction(len in 1u32..80, mask in any::<u128>()) {
            let piece = Piece::insert((0..len).collect());
            let take_over: Vec<u32> = (0..len).filter(|index| mask >> index & 1 == 1).collect();
            let pieces = piece.clone().divide(&take_over);
            let order: Vec<u32> = pieces.iter().flat_map(|p| p.records.clone()).collect();
            prop_assert_eq!(order, piece.records);
            for piece in pieces {
                let is_take_over = piece.claiming == Claiming::TakeOver;
                prop_assert_eq!(is_take_over, piece.records.iter().any(|r| take_over.contains(r)));
                prop_assert!(!is_take_over || piece.records.len() == 1);
            }
        }
    }
}
