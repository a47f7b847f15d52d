//! How far a partition is done.

use std::collections::VecDeque;

/// The offset below which every record of an assignment is done, so that it is safe to store.
///
/// Records are known by the order of their delivery, not by their offsets: offsets have gaps (compaction,
/// transactions), and they begin again when a topic is made again.
#[derive(Debug, Default)]
pub(crate) struct Watermark {
    /// Delivered and not passed yet: offset, and whether it is done.
    open: VecDeque<(i64, bool)>,
    /// Number of the first of `open`.
    first: u64,
}

/// Number of a delivery within its assignment.
pub(crate) type Sequence = u64;

impl Watermark {
    /// Notes that a record was delivered.
    pub(crate) fn deliver(&mut self, offset: i64) -> Sequence {
        self.open.push_back((offset, false));
        self.first + self.open.len() as u64 - 1
    }

    /// Notes that a record is done. It is passed once everything before it is.
    pub(crate) fn done(&mut self, sequence: Sequence) {
        let index = sequence
            .checked_sub(self.first)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.open.get_mut(index)) {
            entry.1 = true;
        }
    }

    /// Moves past what is done. The offset to go on at, if it moved.
    pub(crate) fn advance(&mut self) -> Option<i64> {
        let mut next = None;
        while let Some(&(offset, true)) = self.open.front() {
            self.open.pop_front();
            self.first += 1;
            next = Some(offset + 1);
        }
        next
    }

    /// How many deliveries are not passed yet.
    pub(crate) fn open_count(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn watermark_never_passes_an_open_offset(gaps in prop::collection::vec(1i64..5, 1..60), order in any::<u64>()) {
            let mut watermark = Watermark::default();
            let mut offset = 0;
            let offsets: Vec<i64> = gaps.iter().map(|gap| { offset += gap; offset }).collect();
            let mut open: Vec<(Sequence, i64)> = offsets.iter().map(|&o| (watermark.deliver(o), o)).collect();
            let (mut seed, mut passed) = (order | 1, i64::MIN);
            while !open.is_empty() {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                let (sequence, _) = open.remove((seed % open.len() as u64) as usize);
                watermark.done(sequence);
                if let Some(next) = watermark.advance() {
                    prop_assert!(next > passed, "{next} after {passed}");
                    passed = next;
                }
                prop_assert!(open.iter().all(|&(_, o)| o >= passed));
            }
            prop_assert_eq!(passed, offsets.last().unwrap() + 1);
            prop_assert_eq!(watermark.open_count(), 0);
        }
    }

    #[test]
    fn a_record_of_a_topic_made_again_is_passed_in_the_order_of_delivery() {
        let mut watermark = Watermark::default();
        let old = watermark.deliver(900);
        let new = watermark.deliver(0);
        watermark.done(new);
        assert_eq!(watermark.advance(), None);
        watermark.done(old);
        assert_eq!(watermark.advance(), Some(1));
    }
}
