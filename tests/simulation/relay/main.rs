//! Several real relays on a store and a broker that lie like the real ones: random schedules, each from
//! a seed, and a judge that knows only what was committed and what is on the topics.
//!
//! | file | what it is |
//! |---|---|
//! | `setup` | what a run is made of |
//! | `rows`, `store`, `statements` | Postgres: snapshots, leases, asynchronous commits, crashes |
//! | `broker` | Kafka and the client in front of it |
//! | `publisher`, `world` | relays, what they have under way, and how it is carried out |
//! | `schedule`, `steps` | what may happen next, and what it does |
//! | `run`, `judge` | a run from its seed to its verdict; what is promised |
//! | `wrong_rules` | each rule switched off: it must be missed |
//! | `conformance` | the store answers as Postgres does |
//!
//! `SEEDS=200000 cargo test --release -p simulation --test relay seeds` runs more of them. A
//! failure prints the line that runs its seed again, step by step.

mod broker;
mod conformance;
mod judge;
mod publisher;
mod rows;
mod run;
mod schedule;
mod setup;
mod statements;
mod steps;
mod store;
mod world;
mod wrong_rules;

use std::time::Duration;

use run::{faults_of, level_of, rerun_line, run, run_many};
use setup::{Faults, Setup};
use simulation::chance::Coverage;

/// What every set of seeds must have met; the second part only where something goes wrong, the third
/// only where the database crashes.
const MET: [&[&str]; 3] = [
    &[
        "published",
        "failed",
        "parks",
        "marks",
        "floors raised",
        "leaf drops",
        "redrives",
        "redrives from the archive",
        "drains",
        "producers forgotten",
    ],
    &[
        "crashes",
        "freezes",
        "take-overs",
        "buckets lost",
        "changes fenced",
        "connections lost",
        "statements refused",
        "rows refused",
        "client refusals",
        "destinations refused",
        "acknowledgements lost",
        "rebuilds",
    ],
    &["database crashes"],
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| {
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value} is not a number"))
    })
}

fn hold_the_promise(faults: Faults) {
    let (first, seeds) = (number("FIRST").unwrap_or(0), number("SEEDS").unwrap_or(3_000));
    let frame = |seed| Setup::drawn(faults, seed);
    let summary = run_many(frame, first, seeds, Duration::MAX);
    if let Some(failure) = &summary.failure {
        panic!("{}", rerun_line(&frame(failure.seed), failure));
    }
    println!("{faults:?}: {} runs, {:?}", summary.runs, summary.coverage.0);
    assert_eq!(
        missed(&summary.coverage, faults),
        Vec::<&str>::new(),
        "never met in {} runs",
        summary.runs
    );
}

fn missed(coverage: &Coverage, faults: Faults) -> Vec<&'static str> {
    let wanted = MET.iter().take(1 + level_of(faults)).copied().flatten().copied();
    wanted.filter(|what| !coverage.0.contains_key(what)).collect()
}

#[test]
fn seeds_hold_the_promise_without_faults() {
    hold_the_promise(Faults::None);
}

#[test]
fn seeds_hold_the_promise_while_processes_and_network_fail() {
    hold_the_promise(Faults::Processes);
}

#[test]
fn seeds_hold_the_promise_while_the_database_crashes() {
    hold_the_promise(Faults::Database);
}

#[test]
fn a_seed_run_twice_gives_the_same_log() {
    for seed in 0..100 {
        for faults in [Faults::None, Faults::Processes, Faults::Database] {
            let setup = Setup::drawn(faults, seed);
            assert_eq!(
                run(&setup, seed, true),
                run(&setup, seed, true),
                "seed {seed} with {faults:?}"
            );
        }
    }
}

/// Runs one seed again and prints it step by step; without `SIMULATION_SEED` there is nothing to run.
#[test]
fn rerun() {
    let Some(seed) = number("SIMULATION_SEED") else { return };
    let setup = match std::env::var("SIMULATION_RULE") {
        Ok(rule) => wrong_rules::frame_of(&rule).unwrap_or_else(|| panic!("no rule is named {rule}")),
        Err(_) => Setup::drawn(faults_of(number("SIMULATION_FAULTS").unwrap_or(2)), seed),
    };
    let outcome = run(&setup, seed, true);
    println!("{}", outcome.trace.join("\n"));
    println!("=> {}", outcome.broken.as_deref().unwrap_or("every promise was kept"));
}
