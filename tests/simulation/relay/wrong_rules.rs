//! Each rule of order, switched off, must be missed: a simulation that does not see a known mistake
//! would not see an unknown one either.
//!
//! Some mistakes need a rare schedule; their frame makes it likelier (fewer buckets, more take-overs, no outages).

use outbox_publisher::domain::rules::Rule::{self, *};

use crate::relay::setup::StoreRule::{self, *};
use crate::relay::setup::{Faults, Off, Setup};

impl From<Rule> for Off {
    fn from(rule: Rule) -> Self {
        Self::Relay(rule)
    }
}

impl From<StoreRule> for Off {
    fn from(rule: StoreRule) -> Self {
        Self::Store(rule)
    }
}

macro_rules! caught_without {
    ($($name:ident: $off:expr, $faults:ident $(, $field:ident = $value:expr)*;)+) => {
        $(#[test]
        fn $name() {
            must_be_caught(stringify!($name));
        })+

        /// The frame in which a rule is tested, by the name of its test.
        pub(crate) fn frame_of(name: &str) -> Option<Setup> {
            match name {
                $(stringify!($name) => Some(Setup {
                    off: $off.into(),
                    $($field: $value,)*
                    ..Setup::new(Faults::$faults)
                }),)+
                _ => None,
            }
        }
    };
}

caught_without! {
    // The relay's own rules.
    bound_before_mark: BoundBeforeMark, Processes, publishers = 1, buckets = 1;
    read_every_bucket: ReadEveryBucket, Processes;
    limited_cursor: LimitedCursor, Processes;
    mark_before_read: MarkBeforeRead, Processes;
    one_cursor: OneCursor, Processes;
    ring_until_read: RingUntilRead, None;
    ring_until_read_after_park: RingUntilReadAfterPark, None;
    side_until_look: SideUntilLook, None;
    low_below_last_mark: LowBelowLastMark, Processes;
    low_below_floors: LowBelowFloors, Processes;
    sample_before_lookup: SampleBeforeLookup, Processes;
    look_before_producing: LookBeforeProducing, Processes;
    repeat_unknown: RepeatUnknown, Processes;
    new_tenancy_after_loss: NewTenancyAfterLoss, Database;
    notice_recovery: NoticeRecovery, Database;
    look_after_park: LookAfterPark, Processes;
    side_after_look: SideAfterLook, Processes, buckets = 1, is_focused = true;
    side_in_order: SideInOrder, Processes, buckets = 1, is_focused = true;
    halts_are_read: HaltsAreRead, Processes;
    side_behind_cursor: SideBehindCursor, Processes, is_focused = true;
    first_alone: FirstAlone, Processes;
    key_stays: KeyStays, Processes, buckets = 1, is_focused = true;
    park_all: ParkAll, Processes;
    // Those of the store, of its statements and of the writers.
    fenced_read: FencedRead, Processes, publishers = 2, buckets = 1, take_over = 2;
    fenced_look: FencedLook, Processes, publishers = 2, buckets = 1, take_over = 2, poison = 2;
    only_pending: OnlyPending, Processes;
    fence_change: FenceChange, Processes, is_focused = true;
    drop_with_scan: DropWithScan, Processes;
    own_xid: OwnXid, Processes;
    sample_before_xid: SampleBeforeXid, Processes, publishers = 1, buckets = 1;
    xid_before_id: XidBeforeId, Processes;
    settle_by_event_id: SettleByEventId, Database, publishers = 1, buckets = 1, asynchronous = 1, poison = 8,
        is_focused = true;
    settle_to_main_lane: SettleToMainLane, Processes;
    sample_before_locks: SampleBeforeLocks, Processes, publishers = 1, buckets = 1, leaps = 4;
    renew_in_same_life: RenewInSameLife, Database;
}

#[cfg(test)]
fn must_be_caught(name: &str) {
    use std::time::Duration;

    use crate::campaign::rerun_line;
    use crate::runs::{Frame, Seeds, run_many};

    /// How long a broken promise is searched for. Most take a fraction of a second and the rarest a few, on a
    /// machine that has nothing else to do; a test that passes never waits for the end of this.
    const SEARCH: Duration = Duration::from_secs(300);

    /// What is rare was found here last, and is searched for from here: a relay that reads or sends otherwise makes
    /// another schedule of the same seed, so that now and then this wants to be looked for again from 0.
    const FOUND_AT: [(&str, u64); 5] = [
        ("bound_before_mark", 65_311),
        ("fenced_look", 54_741),
        ("sample_before_xid", 33_126),
        ("settle_by_event_id", 1_344_674),
        ("side_behind_cursor", 153_496),
    ];

    let found_at = FOUND_AT.iter().find(|(rare, _)| *rare == name);
    let frame = Frame::Publisher(frame_of(name).expect("it is in this table"));
    let seeds = Seeds {
        first: found_at.map_or(0, |(_, seed)| *seed),
        count: u64::MAX / 2,
        time: SEARCH,
    };
    let summary = run_many(seeds, |_| vec![frame.clone()], |_| {});
    match &summary.failure {
        Some(failure) => {
            let line = rerun_line(failure.seed, Some(name));
            println!("{} runs: {}\n  {line}", summary.seeds, failure.broken);
        }
        None => panic!("{} runs without {name} broke no promise", summary.seeds),
    }
}
