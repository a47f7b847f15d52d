//! How many rows of each bucket a read asks for.

use super::Relay;
use crate::domain::tenancy::Tenancy;

/// Ids by which a bucket with a backlog may be ahead of the last one before it is held back. Buckets that are read side
/// by side are on the same pages of the table: far apart, each page of a large backlog is fetched once for every bucket
/// with a row on it.
const AHEAD_IDS: i64 = 16_384;
/// One that is held back has so small a part of its share, and not nothing: a hot key makes its bucket the last one,
/// and the others are not to wait for it.
const AHEAD_PART: usize = 4;

/// What the buckets of one read are to have.
#[derive(Debug)]
pub(super) struct Shares {
    /// Of a bucket that had no more than its share the last time.
    usual: usize,
    /// Of one that had: these divide all of it among them.
    backlog: usize,
    /// Of one of those that is ahead.
    ahead: usize,
    /// Up to this cursor none is ahead.
    ahead_from: i64,
}

impl Shares {
    pub(super) fn of(relay: &Relay) -> Self {
        let limited = || relay.tenancies.values().filter(|tenancy| tenancy.is_limited);
        let backlog = relay.share(limited().count());
        // One that has no room waits for its topic or its key, and the others do not wait with it.
        let last = limited()
            .filter(|tenancy| !tenancy.is_draining && relay.room(tenancy) >= backlog)
            .map(|tenancy| tenancy.cursor)
            .min();
        let ahead_from = last.map_or(i64::MAX, |last| last.saturating_add(AHEAD_IDS));
        let behind = limited().filter(|tenancy| tenancy.cursor <= ahead_from).count();
        Self {
            usual: relay.share(relay.tenancies.len()),
            backlog: relay.share(behind),
            ahead: (backlog / AHEAD_PART).max(1),
            ahead_from,
        }
    }

    pub(super) fn share(&self, tenancy: &Tenancy) -> usize {
        if !tenancy.is_limited {
            self.usual
        } else if tenancy.cursor <= self.ahead_from {
            self.backlog
        } else {
            self.ahead
        }
    }
}

impl Relay {
    /// Rows of one bucket in a read, where so many buckets share it: few of many, so that a read stays small enough
    /// to be soon again, and many of few, so that a single hot key is not held up by the reads.
    fn share(&self, buckets: usize) -> usize {
        (self.config.read_rows_shared / buckets.max(1)).clamp(1, self.config.read_rows_max)
    }

    /// Rows of one more read that a bucket has room for.
    pub(super) fn room(&self, tenancy: &Tenancy) -> usize {
        let waiting = tenancy.ring.len() - tenancy.over_count();
        self.config.bucket_rows_max.saturating_sub(waiting)
    }
}

impl Tenancy {
    /// Rows in the ring that only wait for a later read.
    fn over_count(&self) -> usize {
        self.ring.values().filter(|item| item.progress.is_over()).count()
    }
}
