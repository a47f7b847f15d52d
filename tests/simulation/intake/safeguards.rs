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
fn must_be_caught(faults: Faults, off: &[Safeguard], as_what: &[&str]) {
    let frame = |seed| Setup {
        off: off.to_vec(),
        ..Setup::drawn(faults, seed)
    };
    let summary = run_many(frame, 0, u64::MAX / 2, SEARCH);
    let Some(failure) = &summary.failure else {
        panic!("{} runs without {off:?} broke no promise", summary.runs);
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
            must_be_caught(Faults::$faults, &[$(Safeguard::$off),+], &$as_what);
        })+
    };
}

caught_without! {
    duplicates_taken_out_once_per_batch_swallow_a_good_record: None, [DedupePerTransaction], ["SWALLOWED"];
    unsorted_claims_wait_for_each_other: None, [SortedClaims], ["DEADLOCK"];
    unclear_commits_taken_for_done_lose_records: Database, [RetryUnclearCommits], ["LOST"];
    results_of_old_assignments_move_offsets: Group, [DropOldResults], ["BACKWARDS", "STUCK", "LOST"];
    a_watermark_with_holes_loses_records: Database, [WatermarkWithoutHoles, PiecesInOrder], ["LOST"];
    pieces_out_of_order_overtake_each_other: Group, [PiecesInOrder], ["ORDER"];
    halves_in_the_order_of_claims_overtake_each_other: None, [BisectByOffset], ["ORDER"];
    two_batches_of_a_partition_overtake_each_other: None, [OneBatchPerPartition], ["ORDER"];
    offsets_stored_before_the_commit_lose_records: None, [StoreAfterCommit], ["LOST"];
    without_the_way_back_good_records_are_swallowed: None, [WayBack], ["SWALLOWED"];
}
