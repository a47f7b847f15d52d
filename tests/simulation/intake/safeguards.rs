//! Each safeguard, switched off, must be missed: a simulation that does not see a known mistake would not
//! see an unknown one either.

use triage_service::intake::safeguards::Safeguard;

use crate::intake::setup::{Faults, Setup};

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

/// A frame with some of them off, by their names with commas between.
pub(crate) fn frame_of(names: &str, seed: u64) -> Option<Setup> {
    let find = |name: &str| ALL.into_iter().find(|one| format!("{one:?}") == name);
    let off: Option<Vec<Safeguard>> = names.split(',').map(find).collect();
    off.map(|off| without(&off, seed))
}

/// The level of faults at which it shows that these are off, and what else it takes.
pub(crate) fn without(off: &[Safeguard], seed: u64) -> Setup {
    let faults = match off {
        [Safeguard::DropOldResults] => Faults::Group,
        [Safeguard::RetryUnclearCommits | Safeguard::PiecesInOrder, ..] => Faults::Database,
        _ => Faults::None,
    };
    let drawn = Setup::drawn(faults, seed);
    // Pieces in order leave no hole, so the watermark is a safeguard behind another. Each record has a key of
    // its own then: else the pieces would be caught, since they overtake each other.
    let keys = match off {
        [Safeguard::PiecesInOrder, Safeguard::WatermarkWithoutHoles] => 1 << 30,
        _ => drawn.keys,
    };
    Setup {
        off: off.to_vec(),
        keys,
        ..drawn
    }
}
