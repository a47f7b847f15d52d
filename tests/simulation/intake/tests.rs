//! Every safeguard in force, the promise is kept; each one switched off must be missed: a simulation that does
//! not see a known mistake would not see an unknown one either.

use std::time::Duration;

use triage_service::intake::safeguards::Safeguard;

use crate::campaign::rerun_line;
use crate::intake::points::WANTED;
use crate::intake::safeguards::without;
use crate::intake::setup::{Faults, Setup};
use crate::runs::{Frame, Part, Seeds, run_many};

fn some(count: u64, time: Duration) -> Seeds {
    Seeds { first: 0, count, time }
}

fn names(off: &[Safeguard]) -> String {
    let names: Vec<String> = off.iter().map(|one| format!("{one:?}")).collect();
    names.join(",")
}

fn hold_the_promise(faults: Faults) {
    let seeds = some(1_000, Duration::MAX);
    let summary = run_many(seeds, |seed| vec![Frame::Intake(Setup::drawn(faults, seed))], |_| {});
    if let Some(failure) = &summary.failure {
        panic!("{}\n  {}", failure.broken, rerun_line(failure.seed, None));
    }
    let wanted = WANTED.iter().take(1 + faults as usize).copied().flatten().copied();
    let coverage = summary.of(Part::Intake);
    println!("{faults:?}: {} seeds\n{}", summary.seeds, coverage.table([]));
    assert_eq!(coverage.missed(wanted), Vec::<&str>::new(), "never met");
}

#[test]
fn seeds_hold_the_promise() {
    for faults in [Faults::None, Faults::Group, Faults::Database] {
        hold_the_promise(faults);
    }
}

/// How long a mistake may be searched for; the rarest takes a small part of it.
const SEARCH: Duration = Duration::from_secs(300);

/// The mistake must be found, and must look as its safeguard says.
fn must_be_caught(off: &[Safeguard], as_what: &[&str]) {
    let frames = |seed| vec![Frame::Intake(without(off, seed))];
    let summary = run_many(some(u64::MAX / 2, SEARCH), frames, |_| {});
    let Some(failure) = &summary.failure else {
        panic!("{} runs without {off:?} broke no promise", summary.seeds);
    };
    let told = format!("{}\n  {}", failure.broken, rerun_line(failure.seed, Some(&names(off))));
    println!("{} runs: {told}", summary.seeds);
    let is_expected = as_what.iter().any(|what| failure.broken.starts_with(what));
    assert!(is_expected, "not one of {as_what:?}: {told}");
}

macro_rules! caught_without {
    ($($name:ident: [$($off:ident),+], $as_what:expr;)+) => {
        mod safeguards {
            use super::*;

            $(#[test]
            fn $name() {
                must_be_caught(&[$(Safeguard::$off),+], &$as_what);
            })+
        }
    };
}

caught_without! {
    duplicates_taken_out_once_per_batch_swallow_a_good_record: [DedupePerTransaction], ["SWALLOWED"];
    unsorted_claims_wait_for_each_other: [SortedClaims], ["DEADLOCK"];
    unclear_commits_taken_for_done_lose_records: [RetryUnclearCommits], ["LOST"];
    results_of_old_assignments_move_offsets: [DropOldResults], ["BACKWARDS", "STUCK", "LOST"];
    pieces_out_of_order_overtake_each_other: [PiecesInOrder], ["ORDER"];
    halves_in_the_order_of_claims_overtake_each_other: [BisectByOffset], ["ORDER"];
    two_batches_of_a_partition_overtake_each_other: [OneBatchPerPartition], ["ORDER"];
    offsets_stored_before_the_commit_lose_records: [StoreAfterCommit], ["LOST"];
    without_the_way_back_good_records_are_swallowed: [WayBack], ["SWALLOWED"];
    a_watermark_with_holes_loses_records: [PiecesInOrder, WatermarkWithoutHoles], ["LOST"];
}

#[test]
fn a_watermark_without_holes_bears_pieces_out_of_order() {
    let both = [Safeguard::PiecesInOrder, Safeguard::WatermarkWithoutHoles];
    let frames = |seed| {
        let mut setup = without(&both, seed);
        setup.off.pop();
        vec![Frame::Intake(setup)]
    };
    let summary = run_many(some(2_000, Duration::MAX), frames, |_| {});
    assert!(summary.failure.is_none(), "{:?}", summary.failure);
}
