//! Every rule in force: whatever goes wrong, the promise is kept.

use std::time::Duration;

use crate::campaign::rerun_line;
use crate::relay::points::WANTED;
use crate::relay::setup::{Faults, Setup};
use crate::runs::{Frame, Part, Seeds, run_many};

fn hold_the_promise(faults: Faults) {
    let seeds = Seeds {
        first: 0,
        count: 3_000,
        time: Duration::MAX,
    };
    let summary = run_many(seeds, |seed| vec![Frame::Publisher(Setup::drawn(faults, seed))], |_| {});
    if let Some(failure) = &summary.failure {
        panic!("{}\n  {}", failure.broken, rerun_line(failure.seed, None));
    }
    let wanted = WANTED.iter().take(1 + faults as usize).copied().flatten().copied();
    let coverage = summary.of(Part::Publisher);
    println!("{faults:?}: {} seeds\n{}", summary.seeds, coverage.table([]));
    assert_eq!(coverage.missed(wanted), Vec::<&str>::new(), "never met");
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
