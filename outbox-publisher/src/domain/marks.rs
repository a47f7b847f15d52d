//! Marks and floors: below which id nobody can still write.
//!
//! A snapshot names running transactions only below its `xmax`, the last *completed* transaction + 1. So
//! a sample of the sequence becomes a mark only when a transaction of our own, which drew its xid after
//! the sample, has committed: from then on every snapshot names each running transaction that may have
//! drawn an id up to that sample.
//!
//! Marks and floors are facts about transactions; all buckets of an instance share them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rules::{Rule, Rules};

/// A full transaction id (`xid8`).
pub type Xid = u64;

/// What a statement's snapshot says of other transactions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Every transaction at or above it had not completed.
    pub xmax: Xid,
    /// Those below `xmax` that were running.
    pub running: Vec<Xid>,
}

impl Snapshot {
    /// Whether a transaction named by an earlier snapshot had ended when this one was taken.
    pub fn shows_ended(&self, xid: Xid) -> bool {
        xid < self.xmax && !self.running.contains(&xid)
    }
}

/// What a read may build on, fixed when it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basis {
    /// The newest mark that was complete for the previous read.
    pub base: Option<i64>,
    /// The newest mark complete for this one: the base of the next.
    mark: Option<i64>,
    /// The floor of each transaction that an earlier snapshot named; `i64::MIN` stands for `low_id`.
    pub floors: Vec<(Xid, i64)>,
    started: u64,
}

impl Basis {
    /// How far down a bucket that has these floors must be read, given the snapshot of the read itself.
    pub fn ended_floor(&self, snapshot: &Snapshot) -> Option<i64> {
        self.floors
            .iter()
            .filter(|(xid, _)| snapshot.shows_ended(*xid))
            .map(|(_, floor)| *floor)
            .min()
    }
}

#[derive(Debug)]
struct Running {
    floor: i64,
    since: Duration,
    /// A higher floor, found by looking at the locks; it holds once a read begun later still names
    /// the transaction: a finished one holds no lock either.
    raise: Option<Raise>,
}

#[derive(Debug, Clone, Copy)]
struct Raise {
    floor: i64,
    reads_before: u64,
}

/// The newest mark and the floors of the transactions that run.
#[derive(Debug, Default)]
pub struct Marks {
    newest: Option<i64>,
    base: Option<i64>,
    running: BTreeMap<Xid, Running>,
    reads_started: u64,
}

/// A transaction that has been named for longer than this is looked up among the locks.
pub const LONG_TRANSACTION: Duration = Duration::from_secs(1);

impl Marks {
    /// A sample of the sequence has become a mark: our own transaction, begun after it, has committed.
    pub fn complete(&mut self, sample: i64) {
        self.newest = Some(self.newest.map_or(sample, |newest| newest.max(sample)));
    }

    /// The newest mark.
    pub fn newest(&self) -> Option<i64> {
        self.newest
    }

    /// Fixes what a read that is sent now builds on.
    pub fn begin_read(&mut self) -> Basis {
        self.reads_started += 1;
        Basis {
            base: self.base,
            mark: self.newest,
            floors: self
                .running
                .iter()
                .map(|(xid, running)| (*xid, running.floor))
                .collect(),
            started: self.reads_started,
        }
    }

    /// Takes in the snapshot of a read that has returned.
    pub fn finish_read(&mut self, basis: &Basis, snapshot: &Snapshot, now: Duration, rules: &Rules) {
        self.running.retain(|xid, _| !snapshot.shows_ended(*xid));
        let floor = basis.base.unwrap_or(i64::MIN);
        for xid in &snapshot.running {
            let known = self.running.entry(*xid).or_insert(Running {
                floor,
                since: now,
                raise: None,
            });
            if let Some(raise) = known.raise.filter(|raise| basis.started > raise.reads_before) {
                known.floor = known.floor.max(raise.floor);
                known.raise = None;
            }
        }
        let mark = if rules.hold(Rule::MarkBeforeRead) {
            basis.mark
        } else {
            self.newest
        };
        self.base = mark.or(self.base);
    }

    /// The lowest id that may still come or come to light: the newest mark that was complete for the
    /// last read, and every floor. `None` while there is no such mark.
    pub fn low(&self, rules: &Rules) -> Option<i64> {
        let base = if rules.hold(Rule::LowBelowLastMark) {
            self.base
        } else {
            self.newest
        }?;
        if !rules.hold(Rule::LowBelowFloors) {
            return Some(base);
        }
        Some(self.running.values().map(|running| running.floor).fold(base, i64::min))
    }

    /// Transactions that run for so long that their locks are worth a look.
    pub fn long_running(&self, now: Duration) -> Vec<Xid> {
        let is_long = |running: &Running| now.saturating_sub(running.since) >= LONG_TRANSACTION;
        self.running
            .iter()
            .filter(|(_, running)| is_long(running))
            .map(|(xid, _)| *xid)
            .collect()
    }

    /// These transactions held no lock on the outbox when they were looked up, after `sample` was taken:
    /// what they insert from now on gets a higher id.
    pub fn raise(&mut self, sample: i64, without_lock: &[Xid], rules: &Rules) {
        let reads_before = self.reads_started;
        for xid in without_lock {
            if let Some(running) = self.running.get_mut(xid) {
                if rules.hold(Rule::SampleBeforeLookup) {
                    running.raise = Some(Raise {
                        floor: sample,
                        reads_before,
                    });
                } else {
                    running.floor = running.floor.max(sample);
                }
            }
        }
    }

    /// For how long the oldest running transaction has been named.
    pub fn oldest_running(&self, now: Duration) -> Duration {
        self.running
            .values()
            .map(|running| now.saturating_sub(running.since))
            .max()
            .unwrap_or_default()
    }

    /// Forgets everything: ids and xids of a server that recovered may have gone back.
    pub fn forget(&mut self) {
        let reads_started = self.reads_started;
        *self = Self {
            reads_started,
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(xmax: Xid, running: &[Xid]) -> Snapshot {
        Snapshot {
            xmax,
            running: running.to_vec(),
        }
    }

    fn read(marks: &mut Marks, snapshot: &Snapshot) -> Basis {
        let basis = marks.begin_read();
        marks.finish_read(&basis, snapshot, Duration::ZERO, &Rules::default());
        basis
    }

    #[test]
    fn a_mark_bounds_the_read_after_the_next() {
        let mut marks = Marks::default();
        marks.complete(40);
        assert_eq!(read(&mut marks, &snapshot(10, &[])).base, None);
        assert_eq!(read(&mut marks, &snapshot(10, &[])).base, Some(40));
    }

    #[test]
    fn a_mark_completed_while_a_read_was_under_way_does_not_count_for_it() {
        let mut marks = Marks::default();
        marks.complete(40);
        let basis = marks.begin_read();
        marks.complete(90);
        marks.finish_read(&basis, &snapshot(10, &[]), Duration::ZERO, &Rules::default());
        assert_eq!(marks.begin_read().base, Some(40));
    }

    #[test]
    fn a_transaction_that_ends_puts_the_bound_down_to_its_floor() {
        let mut marks = Marks::default();
        marks.complete(40);
        read(&mut marks, &snapshot(10, &[]));
        read(&mut marks, &snapshot(12, &[11])); // first named behind mark 40
        marks.complete(90);
        read(&mut marks, &snapshot(12, &[11]));
        let basis = marks.begin_read();
        assert_eq!(basis.base, Some(90));
        assert_eq!(basis.ended_floor(&snapshot(13, &[11])), None);
        assert_eq!(basis.ended_floor(&snapshot(13, &[])), Some(40));
        assert_eq!(marks.low(&Rules::default()), Some(40));
    }

    #[test]
    fn a_raised_floor_holds_only_when_a_later_read_still_names_the_transaction() {
        let mut marks = Marks::default();
        marks.complete(40);
        read(&mut marks, &snapshot(10, &[]));
        read(&mut marks, &snapshot(12, &[11]));
        let under_way = marks.begin_read();
        marks.raise(70, &[11], &Rules::default());
        marks.finish_read(&under_way, &snapshot(12, &[11]), Duration::ZERO, &Rules::default());
        assert_eq!(
            marks.begin_read().floors,
            [(11, 40)],
            "that read had begun before the look-up"
        );
        read(&mut marks, &snapshot(12, &[11]));
        assert_eq!(marks.begin_read().floors, [(11, 70)]);
    }
}
