//! A run from its seed to its verdict, and many of them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use simulation::chance::Coverage;

use crate::rows::Status;
use crate::setup::{Faults, Off, Setup};
use crate::world::World;

/// Steps after which a run that has not come to rest never will.
const QUIET_STEPS_MAX: usize = 6_000;

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) broken: Option<String>,
    pub(crate) coverage: Coverage,
    pub(crate) trace: Vec<String>,
}

/// Runs one seed.
pub(crate) fn run(setup: &Setup, seed: u64, is_traced: bool) -> Outcome {
    let mut world = World::new(setup, seed);
    world.trace = is_traced.then(Vec::new);
    let broken = world.live();
    if is_traced {
        let events = world.store.events.clone();
        for (number, event) in events.iter().enumerate() {
            let transaction = world.store.transactions[event.transaction].clone();
            world.note(|_| {
                format!(
                    "event {number}: {event:?} in {:?} at {}",
                    transaction.phase, transaction.committed_at
                )
            });
        }
    }
    Outcome {
        broken,
        coverage: world.coverage,
        trace: world.trace.unwrap_or_default(),
    }
}

impl World {
    fn live(&mut self) -> Option<String> {
        let steps = 60 + self.chance.below(800);
        for step in 0..steps {
            self.step();
            if self.store.broken.is_some() {
                return self.store.broken.take();
            }
            if step > 40 && self.is_at_rest() {
                break;
            }
        }
        self.settle_down();
        if !self.come_to(|world| world.is_at_rest()) {
            return self
                .store
                .broken
                .take()
                .or_else(|| self.verdict())
                .or(Some("never at rest".to_owned()));
        }
        self.is_ending = true;
        for p in 0..self.publishers.len() {
            if self.publishers[p].is_alive && !self.publishers[p].is_leaving {
                self.publishers[p].is_leaving = true;
                self.publishers[p].relay.drain(self.now);
            }
            if self.publishers[p].is_alive {
                self.advance(p);
            }
        }
        let is_empty = self.come_to(|world| world.publishers.iter().all(|publisher| !publisher.is_alive));
        let undrained = (!is_empty).then(|| "UNDRAINED: a publisher never gave everything back".to_owned());
        self.store.broken.take().or_else(|| self.verdict()).or(undrained)
    }

    /// Faults end: what is down comes up, what is forbidden is allowed.
    fn settle_down(&mut self) {
        self.note(|_| "-- quiet".to_owned());
        self.is_quiet = true;
        self.weights = [3; 8];
        self.broker.forbidden = [false; 2];
        for p in 0..self.publishers.len() {
            self.publishers[p].is_frozen = false;
            if !self.publishers[p].is_alive {
                self.publishers[p] = self.new_publisher();
            }
            self.wake_at[p] = self.now;
        }
    }

    /// Steps until something holds; operators redrive meanwhile. False if it never does.
    fn come_to(&mut self, holds: impl Fn(&Self) -> bool) -> bool {
        for step in 0..QUIET_STEPS_MAX {
            if holds(self) || self.store.broken.is_some() {
                return true;
            }
            let is_waiting = self.store.open_rows(Status::Pending).next().is_some();
            if !is_waiting || step % 300 == 299 {
                self.redrive_all();
            }
            self.step();
        }
        false
    }

    fn redrive_all(&mut self) {
        if self.store.transactions.iter().any(|transaction| transaction.is_open()) {
            return;
        }
        let failed = |at: &usize| self.store.rows[*at].now.status == Status::Failed && self.is_redrivable(*at);
        let failed: Vec<usize> = (0..self.store.rows.len()).filter(failed).collect();
        for at in failed {
            self.note(|world| format!("operator redrives row {}", world.store.rows[at].event.id));
            self.store.redrive(at, self.step);
        }
    }
}

/// A seed that broke a promise.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) broken: String,
}

/// What many seeds gave.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) runs: u64,
    pub(crate) coverage: Coverage,
    pub(crate) failure: Option<Failure>,
}

/// Runs seeds from `first` on two threads, until one fails, `count` are done or the time is over.
pub(crate) fn run_many(frame: impl Fn(u64) -> Setup + Sync, first: u64, count: u64, time: Duration) -> Summary {
    let (next, is_over) = (AtomicU64::new(first), AtomicBool::new(false));
    let started = Instant::now();
    let summary = Mutex::new(Summary {
        runs: 0,
        coverage: Coverage::default(),
        failure: None,
    });
    let work = || {
        let (mut runs, mut coverage, mut failure) = (0, Coverage::default(), None);
        while !is_over.load(Ordering::Relaxed) && started.elapsed() < time {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                break;
            }
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&frame(seed), seed, false)))
                .unwrap_or_else(|_| Outcome {
                    broken: Some("PANIC".to_owned()),
                    coverage: Coverage::default(),
                    trace: Vec::new(),
                });
            runs += 1;
            coverage.merge(&outcome.coverage);
            if let Some(broken) = outcome.broken {
                is_over.store(true, Ordering::Relaxed);
                failure = Some(Failure { seed, broken });
                break;
            }
        }
        let mut all = summary.lock().expect("no worker panics with it");
        all.runs += runs;
        all.coverage.merge(&coverage);
        let is_earlier = |failure: &Failure| all.failure.as_ref().is_none_or(|known| failure.seed < known.seed);
        if failure.as_ref().is_some_and(is_earlier) {
            all.failure = failure;
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    summary.into_inner().expect("no worker panics with it")
}

/// The line that runs a seed again.
pub(crate) fn rerun_line(setup: &Setup, failure: &Failure) -> String {
    let which = match setup.off {
        Off::Nothing => format!("SIMULATION_FAULTS={}", level_of(setup.faults)),
        Off::Relay(rule) => format!("SIMULATION_RULE={}", snake_case(&format!("{rule:?}"))),
        Off::Store(rule) => format!("SIMULATION_RULE={}", snake_case(&format!("{rule:?}"))),
    };
    let Failure { seed, broken } = failure;
    format!(
        "{broken}\n  SIMULATION_SEED={seed} {which} cargo test --release -p simulation --test relay rerun -- --nocapture"
    )
}

/// Faults as a number, for that line.
pub(crate) fn level_of(faults: Faults) -> usize {
    match faults {
        Faults::None => 0,
        Faults::Processes => 1,
        Faults::Database => 2,
    }
}

/// The reverse of [`level_of`].
pub(crate) fn faults_of(level: u64) -> Faults {
    match level {
        0 => Faults::None,
        1 => Faults::Processes,
        _ => Faults::Database,
    }
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}
