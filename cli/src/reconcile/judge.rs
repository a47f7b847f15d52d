//! What a difference between Postgres and Kafka means. Pure: facts in, a code out.
//!
//! The store finds what has no counterpart; most of that is in order. Whether it is depends on when each side was
//! looked at, and on what retention may have removed:
//!
//! | order of looks | because |
//! |---|---|
//! | 1 `settled`: the outputs' ends | a record below them is older than the snapshot, and its row was committed before it was sent: the snapshot has it, or it was dropped |
//! | 2 `committed`: the group's offsets | they move after the commit in Postgres: what lies below is claimed in the snapshot |
//! | 3 the snapshot of Postgres | all rows, claims and decisions at one moment |
//! | 4 `end`: the outputs' ends again | a row that is PUBLISHED in the snapshot was acknowledged before it: its record lies below them |
//!
//! Looked at in another order, a running system would be called wrong: it goes on between two looks.

use std::collections::BTreeMap;

use super::code::Code;
use super::window::Millis;

/// How far clocks may lie apart: times of records are their producer's, times of rows the database's.
pub const SKEW: Millis = 10 * 60 * 1_000;
/// Claims are thinned some time after their retention, decisions stand beside them: no verdict so close to it.
const MARGIN: Millis = 3_600 * 1_000;

/// What is known of a partition of an output topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Edges {
    /// The end before the snapshot was taken.
    pub settled: i64,
    /// The record of a row made at this moment or before may have been removed, or lie before the window; `None` where
    /// every record is looked at.
    pub lost_until: Option<Millis>,
}

impl Edges {
    fn may_have_lost(&self, made: Millis) -> bool {
        self.lost_until.is_some_and(|until| made <= until)
    }
}

/// Where the reading of a partition begins, and why there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// With the first record ever.
    Whole,
    /// With the first record that retention or the window has left, made at this moment; `None` where there is none.
    Cut(Option<Millis>),
    /// With the first record made at this moment or later.
    Since(Millis),
    /// Compaction may have removed any record.
    Compacted,
}

impl Beginning {
    /// Until when rows may have lost their record.
    pub fn lost_until(self) -> Option<Millis> {
        match self {
            Self::Whole => None,
            Self::Cut(first) => Some(first.map_or(Millis::MAX, |first| first.saturating_add(SKEW))),
            Self::Since(moment) => Some(moment.saturating_add(SKEW)),
            Self::Compacted => Some(Millis::MAX),
        }
    }
}

/// What is known of an output topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Its partitions.
    pub partitions: BTreeMap<i32, Edges>,
    /// Records lie where the present count of partitions would not put them: it was changed.
    pub was_repartitioned: bool,
}

impl Output {
    fn may_have_lost(&self, expected: i32, made: Millis) -> bool {
        match self.partitions.get(&expected) {
            Some(edges) if !self.was_repartitioned => edges.may_have_lost(made),
            Some(_) | None => self.partitions.values().any(|edges| edges.may_have_lost(made)),
        }
    }
}

/// What is known when the joins are judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Knowledge {
    /// The database's clock at the snapshot.
    pub now: Millis,
    /// How long claims are kept.
    pub claims_kept: Millis,
    /// The group's committed offset by partition, looked at before the snapshot.
    pub committed: BTreeMap<i32, i64>,
    /// By partition, the lowest place of a claim that is still within retention: whatever lies above was claimed
    /// later, so its claim is kept, too.
    pub claims_kept_from: BTreeMap<i32, i64>,
    /// Rows below this id were dropped with their leaf.
    pub rows_from_id: i64,
    /// When the oldest kept row was made, if leaves were dropped; all rows are kept otherwise.
    pub rows_from: Option<Millis>,
    /// The output topics, in the order of their numbers.
    pub outputs: Vec<Output>,
    /// Others may write to them.
    pub admits_foreign: bool,
}

/// A record on an output topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of its topic.
    pub topic: usize,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

impl Knowledge {
    /// A claim made at that time may have been retired.
    fn claim_may_be_retired(&self, claimed_at: Millis) -> bool {
        claimed_at < self.now - self.claims_kept + MARGIN
    }

    /// An input record whose event is not claimed.
    pub fn of_unclaimed(&self, partition: i32, offset: i64, made: Option<Millis>) -> Code {
        if self
            .committed
            .get(&partition)
            .is_none_or(|committed| offset >= *committed)
        {
            return Code::InputUnclaimed;
        }
        let follows_kept_claim = self.claims_kept_from.get(&partition).is_some_and(|kept| offset > *kept);
        // It was claimed after it was made. A time from the future tells nothing.
        let is_young = made.is_some_and(|made| made <= self.now + SKEW && !self.claim_may_be_retired(made));
        if follows_kept_claim || is_young {
            Code::OffsetPastUnclaimed
        } else {
            Code::ClaimGone
        }
    }

    /// A committed offset above the end of its partition; the end was looked at later.
    pub const fn of_committed(committed: i64, end: i64) -> Option<Code> {
        if committed > end {
            Some(Code::OffsetPastEnd)
        } else {
            None
        }
    }

    /// A claim without its outbox row.
    pub fn of_claim_without_row(&self, claimed_at: Millis, is_set_aside: bool) -> Code {
        // Its row was written after the claim, so above the oldest kept one if the claim is younger than that.
        if self.rows_from.is_some_and(|kept| claimed_at < kept) {
            Code::OutcomeGone
        } else if is_set_aside {
            Code::ClaimWithoutDeadLetter
        } else {
            Code::ClaimWithoutOutcome
        }
    }

    /// A claim without its decision, whose day of decisions may have been dropped.
    pub const fn of_claim_without_decision(is_day_dropped: bool) -> Code {
        if is_day_dropped {
            Code::DecisionGone
        } else {
            Code::ClaimWithoutDecision
        }
    }

    /// A decision without its claim; claims are retired first.
    pub fn of_decision_without_claim(&self, decided_at: Millis) -> Option<Code> {
        (!self.claim_may_be_retired(decided_at)).then_some(Code::DecisionWithoutClaim)
    }

    /// Several decisions about one event, or several rows for one outcome.
    pub const fn of_repeated(&self, first: Millis, last: Millis, code: Code) -> Code {
        // Far enough apart that the first one's claim was retired in between.
        if last - first > self.claims_kept - MARGIN {
            Code::DecidedAgain
        } else {
            code
        }
    }

    /// A PUBLISHED row without a record below the ends that were looked at after the snapshot.
    pub fn of_published_without_record(&self, topic: usize, expected_partition: i32, made: Millis) -> Code {
        let may_be_gone = self
            .outputs
            .get(topic)
            .is_some_and(|output| output.may_have_lost(expected_partition, made));
        if may_be_gone {
            Code::RecordGone
        } else {
            Code::PublishedWithoutRecord
        }
    }

    /// A record without a row; foreign is what has nothing of ours.
    pub fn of_record_without_row(&self, place: Place, outbox_id: Option<i64>, is_foreign: bool) -> Option<Code> {
        if !self.is_settled(place) {
            return None; // its row may have been written after the snapshot
        }
        if outbox_id.is_some_and(|id| id < self.rows_from_id) {
            return Some(Code::RowGone);
        }
        if is_foreign && self.admits_foreign {
            return Some(Code::ForeignRecord);
        }
        Some(Code::RecordWithoutRow)
    }

    /// A record behind which stands one that it was to follow; `earlier_made` is when that one's row was written.
    pub fn of_inversion(&self, place: Place, earlier_made: Millis) -> Code {
        let may_be_gone = self.edges(place).is_some_and(|edges| edges.may_have_lost(earlier_made));
        if may_be_gone {
            Code::OrderGone
        } else {
            Code::OrderInverted
        }
    }

    /// A record although one that it was to follow is PENDING, and on no topic.
    pub fn of_overtaken(&self, place: Place, earlier_made: Millis) -> Option<Code> {
        // Published after the snapshot, the other may have been set aside in between.
        self.is_settled(place).then(|| self.of_inversion(place, earlier_made))
    }

    /// Whether a record is older than the snapshot.
    fn is_settled(&self, place: Place) -> bool {
        self.edges(place).is_some_and(|edges| place.offset < edges.settled)
    }

    fn edges(&self, place: Place) -> Option<&Edges> {
        self.outputs.get(place.topic)?.partitions.get(&place.partition)
    }
}

#[cfg(test)]
mod tests;
