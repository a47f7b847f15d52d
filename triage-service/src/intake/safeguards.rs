//! Switches for single safeguards, so that the simulation can show that each one is needed.
//!
//! Without the feature `testing` they do not exist: every safeguard holds, and the checks compile away.

/// A rule of the intake without which something breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Safeguard {
    /// Duplicates inside a batch are taken out anew for each transaction, not once per batch: else the
    /// good second of `[X data error, X good]` is lost by the bisection.
    DedupePerTransaction,
    /// Claims are made in the order of their ids: else two owners wait for each other.
    SortedClaims,
    /// A commit of unknown result is tried again: else what it did not store is lost.
    RetryUnclearCommits,
    /// A result belongs to the assignment it was begun under: else the committed offset jumps over
    /// records that nobody decided, or goes backwards.
    DropOldResults,
    /// The watermark stops at the first open offset. Shows only together with [`Safeguard::PiecesInOrder`],
    /// since pieces in order leave no hole.
    WatermarkWithoutHoles,
    /// A piece that failed is tried again before those behind it: else outcomes overtake each other.
    PiecesInOrder,
    /// A batch is halved in the order of its offsets, not of its claims: else a key's second event is
    /// decided in the first half.
    BisectByOffset,
    /// A partition has one batch in flight: else its batches overtake each other.
    OneBatchPerPartition,
    /// Offsets are stored after the commit: else a crash between the two loses the records.
    StoreAfterCommit,
    /// A record whose id is claimed as set aside by another record takes that claim over: else a
    /// corrected resend is swallowed.
    WayBack,
}

/// Which safeguards hold. All of them, unless a test says otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Safeguards {
    #[cfg(feature = "testing")]
    off: u32,
}

impl Safeguards {
    /// The same without one.
    #[cfg(feature = "testing")]
    #[must_use]
    pub const fn without(mut self, safeguard: Safeguard) -> Self {
        self.off |= 1 << safeguard as u32;
        self
    }

    #[cfg(feature = "testing")]
    pub(crate) const fn hold(self, safeguard: Safeguard) -> bool {
        self.off & (1 << safeguard as u32) == 0
    }

    #[cfg(not(feature = "testing"))]
    #[inline(always)]
    pub(crate) const fn hold(self, _safeguard: Safeguard) -> bool {
        true
    }
}
