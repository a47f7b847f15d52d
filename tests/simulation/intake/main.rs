//! The real intake of several members on a store and a group that lie like the real ones, many seeds of it.
//!
//! Every answer of the store is a point at which the schedule may do something else first: serve another
//! transaction, cut the connection, move the partition, end the process.

mod conformance;
mod inbox;
mod judge;
mod member;
mod run;
mod safeguards;
mod schedule;
mod setup;
mod store;
mod world;

use std::time::Duration;

use run::{rerun_line, run, run_many};
use setup::{Faults, Setup};
use simulation::chance::Coverage;

const LEVELS: [Faults; 3] = [Faults::None, Faults::Group, Faults::Database];

/// What the seeds have to meet, by level of faults: what never happens proves nothing.
const MET: [&[&str]; 3] = [
    &[
        "committed",
        "take over",
        "data error",
        "dead letters",
        "duplicates",
        "other bodies",
        "waits for a claim",
    ],
    &[
        "attempt given up",
        "commit after its client left",
        "commit of a zombie",
        "crash",
        "delivered again",
        "lock timeout",
        "offset lost",
        "offset refused",
        "revoke abandoned",
        "session lost",
    ],
    &[
        "claim gone",
        "cut after a commit",
        "cut before a commit",
        "database crash",
        "session ended",
        "unavailable",
        "unclear",
    ],
];

fn env(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn seeds_hold_the_promise() {
    let (seeds, mut coverage) = (env("SEEDS").unwrap_or(1_000), Coverage::default());
    for (faults, met) in LEVELS.into_iter().zip(MET) {
        let frame = |seed| Setup::drawn(faults, seed);
        let summary = run_many(frame, env("FIRST").unwrap_or(0), seeds, Duration::from_secs(3_600));
        println!("{faults:?}: {} runs, {:?}", summary.runs, summary.coverage.0);
        if let Some(failure) = &summary.failure {
            panic!("{}", rerun_line(&frame(failure.seed), failure));
        }
        coverage.merge(&summary.coverage);
        let missed: Vec<_> = met.iter().filter(|what| !coverage.0.contains_key(**what)).collect();
        assert!(missed.is_empty(), "{} runs without {missed:?}", summary.runs);
    }
}

#[test]
fn a_seed_run_twice_gives_the_same_log() {
    for (seed, faults) in (0..40).flat_map(|seed| LEVELS.map(|faults| (seed, faults))) {
        let setup = Setup::drawn(faults, seed);
        assert_eq!(run(&setup, seed, true), run(&setup, seed, true));
    }
}

/// Does nothing unless a seed is named; a failure prints the line that names it.
#[test]
fn rerun() {
    let Some(seed) = env("SEED") else { return };
    let mut setup = Setup::drawn(LEVELS[env("FAULTS").unwrap_or(2) as usize], seed);
    setup.keys = env("KEYS").map_or(setup.keys, |keys| keys as usize);
    let off = std::env::var("WITHOUT").unwrap_or_default();
    setup.off = safeguards::ALL
        .into_iter()
        .filter(|one| off.split(',').any(|name| name == format!("{one:?}")))
        .collect();
    let outcome = run(&setup, seed, true);
    println!("{setup:?}\n{}", outcome.trace.join("\n"));
    assert_eq!(outcome.broken, None);
}
