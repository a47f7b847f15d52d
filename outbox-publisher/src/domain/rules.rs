//! The rules of order that a test may switch off, one at a time, to show that each is needed.
//!
//! Without the feature `testing` every rule holds and the question costs nothing.

/// A rule of the relay, by the wrong behaviour that shows without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// `low_id` bounds the read while no mark is complete.
    BoundBeforeMark,
    /// A bucket without room is read with limit 0, not left out.
    ReadEveryBucket,
    /// A limited read that gave a bucket no row puts its cursor down to the bound.
    LimitedCursor,
    /// A mark counts for a read only if it was complete when the read was sent.
    MarkBeforeRead,
    /// One bound for fresh rows and late ones.
    OneCursor,
    /// A row leaves the ring only with a read begun after its settle.
    RingUntilRead,
    /// A parked row stays in the ring likewise.
    RingUntilReadAfterPark,
    /// A settled side row stays in the cache until a look begun after it.
    SideUntilLook,
    /// `low_id` stays below the newest mark of the last read.
    LowBelowLastMark,
    /// `low_id` stays below every floor.
    LowBelowFloors,
    /// The sample of a lock look-up is taken before it.
    SampleBeforeLookup,
    /// Nothing is produced before the side lane was looked at.
    LookBeforeProducing,
    /// A retry, park or fail of unknown outcome is repeated.
    RepeatUnknown,
    /// After a lost connection every bucket begins anew.
    NewTenancyAfterLoss,
    /// A recovered server is noticed although no connection was lost.
    NoticeRecovery,
    /// A look counts for a key only if begun after its last change.
    LookAfterPark,
    /// A side row is sent only after a look that counts.
    SideAfterLook,
    /// A side row is sent only when nothing below it is outstanding.
    SideInOrder,
    /// Halts are what the last look says.
    HaltsAreRead,
    /// A side row waits until lane 0 was read past it.
    SideBehindCursor,
    /// The first batch to a partition goes alone.
    FirstAlone,
    /// A key changes producers only with nothing unacknowledged.
    KeyStays,
    /// Every follower of a blocked key is parked, not only the overflow.
    ParkAll,
}

/// The rules in force.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    #[cfg(feature = "testing")]
    off: std::collections::BTreeSet<Rule>,
}

impl Rules {
    /// All rules but these.
    #[cfg(feature = "testing")]
    pub fn without(off: impl IntoIterator<Item = Rule>) -> Self {
        Self {
            off: off.into_iter().collect(),
        }
    }

    /// Whether a rule holds.
    #[cfg(feature = "testing")]
    pub fn hold(&self, rule: Rule) -> bool {
        !self.off.contains(&rule)
    }

    /// Whether a rule holds: it does.
    #[cfg(not(feature = "testing"))]
    #[inline(always)]
    pub const fn hold(&self, _: Rule) -> bool {
        true
    }
}
