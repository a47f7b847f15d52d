//! Each safeguard, switched off, must be missed: a simulation that does not see a known mistake would not
//! see an unknown one either.

use std::time::Duration;

use triage_service::intake::safeguards::Safeguard;

use crate::run::{rerun_line, run_many};
use crate::setup::{Faults, Setup};

/// All of them, to find one by its name.
pub(crate) const ALL: [Safeguard; 10] = [
    Safeguard::DedupePerTransaction,
    Safeguard::SortedClaims,
    Safeguard::RetryUnclearCommits,
    Safeguard::DropOldResults,
    Safeguard::WatermarkWithoutHoles,
    Safeguard::PiecesInOrder,
    Safeguard::BisectByOffset,
    Safeguard::OneBatchPerPartition,
    Safeguard::StoreAfterCommit,
    Safeguard::WayBack,
];

/// How long a mistake may be searched for; the rarest takes a small part of it.
const SEARCH: Duration = Duration::from_secs(20);

/// The mistake must be found, and must look as its safeguard says.
fn must_be_caught(frame: impl Fn(u64) -> Setup + Sync, as_what: &[&str]) {
    let summary = run_many(&frame, 0, u64::MAX / 2, SEARCH);
    let Some(failure) = &summary.failure else {
        panic!("{} runs without {:?} broke no promise", summary.runs, frame(0).off);
    };
    println!("{} runs: {}", summary.runs, rerun_line(&frame(failure.seed), failure));
    let is_expected = as_what.iter().any(|what| failure.broken.starts_with(what));
    assert!(
        is_expected,
        "not one of {as_what:?}: {}",
        rerun_line(&frame(failure.seed), failure)
    );
}

macro_rules! caught_without {
    ($($name:ident: $faults:ident, [$($off:ident),+], $as_what:expr;)+) => {
        $(#[test]
        fn $name() {
            let off = vec![$(Safeguard::$off),+];
            must_be_caught(|seed| Setup { off: off.clone(), ..Setup::drawn(Faults::$faults, seed) }, &$as_what);
        })+
    };
}

caught_without! {
    duplicates_taken_out_once_per_batch_swallow_a_good_record: None, [DedupePerTransaction], ["SWALLOWED"];
    unsorted_claims_wait_for_each_other: None, [SortedClaims], ["DEADLOCK"];
    unclear_commits_taken_for_done_lose_records: Database, [RetryUnclearCommits], ["LOST"];
    results_of_old_assignments_move_offsets: Group, [DropOldResults], ["BACKWARDS", "STUCK", "LOST"];
    pieces_out_of_order_overtake_each_other: Database, [PiecesInOrder], ["ORDER"];
    halves_in_the_order_of_claims_overtake_each_other: None, [BisectByOffset], ["ORDER"];
    two_batches_of_a_partition_overtake_each_other: None, [OneBatchPerPartition], ["ORDER"];
    offsets_stored_before_the_commit_lose_records: None, [StoreAfterCommit], ["LOST"];
    without_the_way_back_good_records_are_swallowed: None, [WayBack], ["SWALLOWED"];
}

/// Pieces in order leave no hole, so this safeguard is one behind another. Each record has a key of its own
/// here: else the pieces would be caught as [`pieces_out_of_order_overtake_each_other`] is.
fn without_pieces_in_order(seed: u64) -> Setup {
    Setup {
        off: vec![Safeguard::PiecesInOrder],
        keys: 1 << 30,
        ..Setup::drawn(Faults::Database, seed)
    }
}

#[test]
fn a_watermark_with_holes_loses_records() {
    let frame = |seed| {
        let mut setup = without_pieces_in_order(seed);
        setup.off.push(Safeguard::WatermarkWithoutHoles);
        setup
    };
    must_be_caught(frame, &["LOST"]);
}

#[test]
fn a_watermark_without_holes_bears_pieces_out_of_order() {
    let summary = run_many(without_pieces_in_order, 0, 2_000, Duration::from_secs(3_600));
    let failure = summary
        .failure
        .map(|failure| rerun_line(&without_pieces_in_order(failure.seed), &failure));
    assert_eq!(failure, None);
}
