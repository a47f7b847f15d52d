//! One run, and many of them on two threads.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::coverage::Coverage;
use crate::shrink::LeftOut;
use crate::{intake, relay};

/// Which of the two is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Publisher,
    Intake,
}

impl Part {
    /// For people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Intake => "intake",
        }
    }
}

/// What a seed does not draw: the part, how much goes wrong, which rule is off, what is left out.
#[derive(Debug, Clone)]
pub(crate) enum Frame {
    Publisher(relay::setup::Setup),
    Intake(intake::setup::Setup),
}

impl Frame {
    pub(crate) const fn part(&self) -> Part {
        match self {
            Self::Publisher(_) => Part::Publisher,
            Self::Intake(_) => Part::Intake,
        }
    }

    /// How much goes wrong, for people.
    pub(crate) fn level(&self) -> String {
        match self {
            Self::Publisher(setup) => format!("{:?}", setup.faults).to_lowercase(),
            Self::Intake(setup) => format!("{:?}", setup.faults).to_lowercase(),
        }
    }

    /// The same, leaving out more.
    pub(crate) fn leaving_out(&self, left_out: LeftOut) -> Self {
        let mut frame = self.clone();
        match &mut frame {
            Self::Publisher(setup) => setup.left_out = left_out,
            Self::Intake(setup) => setup.left_out = left_out,
        }
        frame
    }

    /// Runs one seed. A panic is a broken promise, too.
    pub(crate) fn run(&self, seed: u64, is_traced: bool) -> Outcome {
        let run = || match self {
            Self::Publisher(setup) => relay::run::run(setup, seed, is_traced),
            Self::Intake(setup) => intake::run::run(setup, seed, is_traced),
        };
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Outcome {
                broken: Some(format!("PANIC: {}", text.unwrap_or("without a text"))),
                ..Outcome::default()
            }
        })
    }
}

/// What came of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) broken: Option<String>,
    pub(crate) coverage: Coverage,
    /// Step by step, if that was asked for.
    pub(crate) trace: Vec<String>,
    pub(crate) faults: Vec<Fault>,
    /// Rows that the seed drew, those left out included.
    pub(crate) rows: usize,
}

/// Something that went wrong on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Its place among the faults that the seed drew.
    pub(crate) number: usize,
    pub(crate) step: u64,
    pub(crate) name: &'static str,
}

/// A seed that broke a promise.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) frame: Frame,
    pub(crate) broken: String,
}

/// What many seeds gave.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) seeds: u64,
    pub(crate) coverage: BTreeMap<Part, Coverage>,
    pub(crate) failure: Option<Failure>,
}

impl Summary {
    pub(crate) fn of(&self, part: Part) -> Coverage {
        self.coverage.get(&part).cloned().unwrap_or_default()
    }

    /// These seeds and more of them.
    pub(crate) fn and(mut self, more: Self) -> Self {
        self.seeds += more.seeds;
        for (part, coverage) in more.coverage {
            self.coverage.entry(part).or_default().merge(&coverage);
        }
        if let Some(failure) = more.failure {
            self.note_failure(failure);
        }
        self
    }

    fn note_failure(&mut self, failure: Failure) {
        let is_earlier = self.failure.as_ref().is_none_or(|known| failure.seed < known.seed);
        if is_earlier {
            self.failure = Some(failure);
        }
    }
}

/// Which seeds, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seeds {
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) time: Duration,
}

/// Seeds that a thread runs before it adds up what they gave.
const PORTION: u64 = 8;

/// Runs the frames of each seed on two threads, until one fails, all are done or the time is over. `watch` hears
/// how many are done.
pub(crate) fn run_many(seeds: Seeds, frames: impl Fn(u64) -> Vec<Frame> + Sync, watch: impl Fn(u64) + Sync) -> Summary {
    let Seeds { first, count, time } = seeds;
    let (next, is_over, started) = (AtomicU64::new(0), AtomicBool::new(false), Instant::now());
    let summary = Mutex::new(Summary::default());
    let work = || {
        while !is_over.load(Ordering::Relaxed) && started.elapsed() < time {
            let begin = next.fetch_add(PORTION, Ordering::Relaxed);
            let end = count.min(begin.saturating_add(PORTION));
            if begin >= end {
                break;
            }
            let (portion, is_whole) = run_portion(first + begin..first + end, &frames);
            if !is_whole {
                is_over.store(true, Ordering::Relaxed);
            }
            let mut all = summary.lock().expect("no worker panics with it");
            all.seeds += portion.seeds;
            for (part, coverage) in &portion.coverage {
                all.coverage.entry(*part).or_default().merge(coverage);
            }
            if let Some(failure) = portion.failure {
                all.note_failure(failure);
            }
            watch(all.seeds);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    summary.into_inner().expect("no worker panics with it")
}

/// Runs these one after the other, up to the first that fails. False if one did.
fn run_portion(seeds: std::ops::Range<u64>, frames: impl Fn(u64) -> Vec<Frame>) -> (Summary, bool) {
    let mut summary = Summary::default();
    for seed in seeds {
        summary.seeds += 1;
        for frame in frames(seed) {
            let outcome = frame.run(seed, false);
            summary
                .coverage
                .entry(frame.part())
                .or_default()
                .merge(&outcome.coverage);
            if let Some(broken) = outcome.broken {
                summary.note_failure(Failure { seed, frame, broken });
                return (summary, false);
            }
        }
    }
    (summary, true)
}
