//! A run from its seed to its verdict, and many of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use simulation::chance::Coverage;

use crate::setup::Setup;
use crate::world::World;

/// Steps after which a run that has not come to rest never will.
const QUIET_STEPS_MAX: usize = 20_000;

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
    let entries: Vec<_> = world
        .partitions
        .iter()
        .flat_map(|partition| partition.log.clone())
        .collect();
    for entry in entries {
        world.log(|_| {
            format!(
                "{} {:?} key {} id {:?}",
                entry.record.at,
                entry.kind,
                entry.key,
                entry.id.as_uuid()
            )
        });
    }
    let broken = world.live();
    Outcome {
        broken,
        coverage: world.coverage,
        trace: world.trace.unwrap_or_default(),
    }
}

impl World {
    fn live(&mut self) -> Option<String> {
        let loud_steps = 100 + self.chance.below(900);
        for _ in 0..loud_steps {
            let can_go_on = self.step();
            if !can_go_on || self.is_broken() {
                break;
            }
        }
        self.log(|_| "-- quiet".to_owned());
        self.is_quiet = true;
        for _ in 0..QUIET_STEPS_MAX {
            if self.is_broken() || self.is_at_rest() || !self.step() {
                break;
            }
        }
        let (is_at_rest, store) = (self.is_at_rest(), self.store.lock());
        if store.judge.broken.is_some() {
            return store.judge.broken.clone();
        }
        if !is_at_rest {
            let offsets: Vec<_> = self
                .partitions
                .iter()
                .map(|partition| (partition.committed, partition.end()))
                .collect();
            return Some(format!("STUCK: offsets and ends are {offsets:?}"));
        }
        store.judge.verdict()
    }

    fn is_broken(&self) -> bool {
        self.store.lock().judge.broken.is_some()
    }

    fn is_at_rest(&self) -> bool {
        self.partitions
            .iter()
            .all(|partition| partition.committed == partition.end())
            && self.members.iter().all(|member| member.is_at_rest())
            && self.store.lock().open_ones().next().is_none()
    }
}

/// A seed that broke a promise.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) broken: String,
}

/// What many seeds gave.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) runs: u64,
    pub(crate) coverage: Coverage,
    pub(crate) failure: Option<Failure>,
}

/// Runs seeds from `first` on two threads, until one fails, `count` are done or the time is over.
pub(crate) fn run_many(frame: impl Fn(u64) -> Setup + Sync, first: u64, count: u64, time: Duration) -> Summary {
    let (next, is_over, end) = (AtomicU64::new(first), AtomicBool::new(false), Instant::now() + time);
    let summary = Mutex::new(Summary::default());
    let work = || {
        while !is_over.load(Ordering::Relaxed) && Instant::now() < end {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                break;
            }
            let outcome = catch_unwind(AssertUnwindSafe(|| run(&frame(seed), seed, false)));
            let (broken, coverage) = match outcome {
                Ok(outcome) => (outcome.broken, outcome.coverage),
                Err(_) => (Some("PANIC: see above".to_owned()), Coverage::default()),
            };
            let mut all = summary.lock().expect("no worker panics with it");
            all.runs += 1;
            all.coverage.merge(&coverage);
            if let Some(broken) = broken {
                is_over.store(true, Ordering::Relaxed);
                let is_earliest = all.failure.as_ref().is_none_or(|known| seed < known.seed);
                all.failure = if is_earliest {
                    Some(Failure { seed, broken })
                } else {
                    all.failure.take()
                };
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    summary.into_inner().expect("no worker panics with it")
}

/// What broke, and the line that runs it again.
pub(crate) fn rerun_line(setup: &Setup, failure: &Failure) -> String {
    let off: Vec<String> = setup.off.iter().map(|safeguard| format!("{safeguard:?}")).collect();
    let without = if off.is_empty() {
        String::new()
    } else {
        format!(" WITHOUT={}", off.join(","))
    };
    let (broken, seed, faults, keys) = (&failure.broken, failure.seed, setup.faults as usize, setup.keys);
    format!(
        "{broken}\n  SEED={seed} FAULTS={faults} KEYS={keys}{without} cargo test --release -p simulation --test intake rerun -- --nocapture"
    )
}
