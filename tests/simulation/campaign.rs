//! Many seeds with their coverage, and one seed again.

use std::fmt::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::runs::{Failure, Frame, Part, Seeds, Summary, run_many};
use crate::shrink::{Shrunk, shrink};
use crate::{intake, relay};

/// From so many seeds on, what was never met is a failure.
pub const SEEDS_THAT_MEET_ALL: u64 = 1_000;

/// What is rare comes a few times in a thousand seeds, so that now and then it does not come: then as many run again,
/// and so often in all.
const ROUNDS_MAX: u64 = 10;

/// How often the progress is told.
const TELL: Duration = Duration::from_secs(5);

/// What a schedule that fails may cost to shrink, in runs.
pub(crate) const SHRINK_RUNS_MAX: usize = 4_000;

/// What is checked of every run, by part.
const CHECKED: [(Part, &[&str]); 2] = [
    (
        Part::Publisher,
        &[
            "every committed row is on its topic and PUBLISHED, no row waits for ever, no FAILED one is lost",
            "first occurrences of a key stand in the promised order, and without a fault nothing stands there twice",
            "PUBLISHED means on its topic; what is PUBLISHED is never taken back",
            "no attempt is counted against a row, and none is FAILED, for trouble that is not its own",
            "a leaf is dropped only when nothing in it may be needed; the sweep finds nothing",
            "no lease is left, every wait is bounded, a drain ends",
        ],
    ),
    (
        Part::Intake,
        &[
            "every record is decided or lies on the dead-letter topic, none is passed by an offset before",
            "nothing is decided twice, and decided again after a fault the same comes out",
            "outcomes of a key follow its offsets, by their ids and by their commits",
            "claims, decisions and outbox rows are of one commit; no good record is set aside",
            "offsets never go back, no transactions wait for each other, nothing waits for ever",
        ],
    ),
];

/// The seeds to run.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The first.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// A rule that is switched off, to see what becomes of it.
    pub without: Option<String>,
}

/// Each seed runs both parts at every level of faults; with a rule off, only the frame in which that shows.
fn frames_of(seed: u64, without: Option<&str>) -> Option<Vec<Frame>> {
    if let Some(name) = without {
        let publisher = || relay::wrong_rules::frame_of(name).map(Frame::Publisher);
        let intake = || intake::safeguards::frame_of(name, seed).map(Frame::Intake);
        return publisher().or_else(intake).map(|frame| vec![frame]);
    }
    let publisher = {
        use relay::setup::{Faults, Setup};
        [Faults::None, Faults::Processes, Faults::Database].map(|faults| Frame::Publisher(Setup::drawn(faults, seed)))
    };
    let intake = {
        use intake::setup::{Faults, Setup};
        [Faults::None, Faults::Group, Faults::Database].map(|faults| Frame::Intake(Setup::drawn(faults, seed)))
    };
    Some(publisher.into_iter().chain(intake).collect())
}

fn known(without: Option<&str>) -> anyhow::Result<()> {
    let named = without.unwrap_or_default();
    let frames = frames_of(0, without);
    frames.with_context(|| {
        format!("WITHOUT={named} names no rule: `own_xid` (relay/wrong_rules.rs) is one, `WayBack` another")
    })?;
    Ok(())
}

/// What every campaign must have met, of one part.
fn wanted(part: Part) -> Vec<&'static str> {
    let all = match part {
        Part::Publisher => relay::points::WANTED,
        Part::Intake => intake::points::WANTED,
    };
    all.into_iter().flatten().copied().collect()
}

/// The line that runs a seed again.
pub(crate) fn rerun_line(seed: u64, without: Option<&str>) -> String {
    let off = without.map(|name| format!(" WITHOUT={name}")).unwrap_or_default();
    format!("make simulate SEED={seed}{off}")
}

impl Campaign {
    /// Runs them and prints what came of it. True if every promise was kept and everything was met.
    ///
    /// # Errors
    /// If `without` names no rule.
    pub fn run(&self) -> anyhow::Result<bool> {
        let without = self.without.as_deref();
        known(without)?;
        println!(
            "seeds {} to {}, on two threads; the same again: FROM={}",
            self.from,
            self.from + self.seeds - 1,
            self.from
        );
        for (part, checked) in CHECKED {
            println!("checked of every run of the {}:", part.name());
            checked.iter().for_each(|what| println!("  {what}"));
        }
        let started = Instant::now();
        let told = Mutex::new(started);
        let watch = |done: u64| {
            let mut told = told.lock().expect("printing does not panic");
            if told.elapsed() >= TELL {
                *told = Instant::now();
                println!("{done} of {} seeds, {:.0} a second", self.seeds, rate(done, started));
            }
        };
        let some = |first| {
            let count = self.seeds;
            let time = Duration::MAX;
            let seeds = Seeds { first, count, time };
            run_many(seeds, |seed| frames_of(seed, without).unwrap_or_default(), watch)
        };
        let mut summary = some(self.from);
        while summary.failure.is_none() && !self.missed(&summary).is_empty() && summary.seeds < self.seeds * ROUNDS_MAX
        {
            println!("not met yet: {}; as many seeds again", self.missed(&summary).join("; "));
            summary = some(self.from + summary.seeds).and(summary);
        }
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{} seeds in {seconds:.1} s, {:.0} a second",
            summary.seeds,
            rate(summary.seeds, started)
        );
        if let Some(failure) = &summary.failure {
            println!("{}", told_of(failure, &shrink(failure, SHRINK_RUNS_MAX), without));
            return Ok(false);
        }
        Ok(self.has_met_all(&summary))
    }

    /// What should have been met and was not.
    fn missed(&self, summary: &Summary) -> Vec<&'static str> {
        if self.seeds < SEEDS_THAT_MEET_ALL || self.without.is_some() {
            return Vec::new();
        }
        let of_part = |(part, _)| summary.of(part).missed(wanted(part));
        CHECKED.into_iter().flat_map(of_part).collect()
    }

    fn has_met_all(&self, summary: &Summary) -> bool {
        for (part, _) in CHECKED {
            let (coverage, wanted) = (summary.of(part), wanted(part));
            if self.without.is_some() && coverage == Default::default() {
                continue;
            }
            println!(
                "met by the {}:\n{}",
                part.name(),
                coverage.table(wanted.iter().copied())
            );
        }
        println!("every promise was kept");
        let missed = self.missed(summary);
        if !missed.is_empty() {
            println!("NEVER MET in {} seeds: {}", summary.seeds, missed.join("; "));
        }
        missed.is_empty()
    }
}

fn rate(seeds: u64, since: Instant) -> f64 {
    seeds as f64 / since.elapsed().as_secs_f64().max(0.001)
}

/// What broke, the line that runs it again, and what is left of its schedule.
pub(crate) fn told_of(failure: &Failure, shrunk: &Shrunk, without: Option<&str>) -> String {
    let (part, level) = (failure.frame.part().name(), failure.frame.level());
    let mut text = format!("BROKEN in the {part}, faults: {level}: {}\n", failure.broken);
    let _ = writeln!(text, "  {}", rerun_line(failure.seed, without));
    text + &left_of(shrunk)
}

fn left_of(shrunk: &Shrunk) -> String {
    let (rows, faults) = (shrunk.rows(), &shrunk.outcome.faults);
    let mut text = format!(
        "what is left of its schedule after {} runs: {rows} of {} rows, {} faults\n",
        shrunk.runs,
        shrunk.outcome.rows,
        faults.len()
    );
    for fault in faults {
        let name = fault.name.trim_start_matches("fault: ");
        let _ = writeln!(text, "  step {:>4}: {name}", fault.step);
    }
    let still = shrunk
        .outcome
        .broken
        .as_deref()
        .unwrap_or("nothing breaks any more: the run does not repeat");
    let _ = writeln!(text, "  still {still}");
    text
}

/// Runs one seed again, step by step; of a seed that fails, only what fails. `is_shrunk` shows what is left of that.
/// True if every promise was kept. `say` takes the log, line by line.
///
/// # Errors
/// If `without` names no rule.
pub fn rerun(seed: u64, without: Option<&str>, is_shrunk: bool, mut say: impl FnMut(&str)) -> anyhow::Result<bool> {
    known(without)?;
    let frames = frames_of(seed, without).unwrap_or_default();
    let broken = frames.iter().find_map(|frame| {
        let broken = frame.run(seed, false).broken?;
        let frame = frame.clone();
        Some(Failure { seed, frame, broken })
    });
    let Some(failure) = broken else {
        for frame in frames {
            say_log(&frame, seed, &mut say);
        }
        return Ok(true);
    };
    let shrunk = shrink(&failure, SHRINK_RUNS_MAX);
    let frame = if is_shrunk {
        shrunk.frame.leaving_out(shrunk.left_out.clone())
    } else {
        failure.frame.clone()
    };
    say_log(&frame, seed, &mut say);
    told_of(&failure, &shrunk, without).lines().for_each(say);
    Ok(false)
}

fn say_log(frame: &Frame, seed: u64, say: &mut impl FnMut(&str)) {
    say(&format!(
        "== {}, faults: {}, seed {seed}",
        frame.part().name(),
        frame.level()
    ));
    let outcome = frame.run(seed, true);
    outcome.trace.iter().for_each(|line| say(line));
    say(&format!(
        "=> {}",
        outcome.broken.as_deref().unwrap_or("every promise was kept")
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(seed: u64, without: Option<&str>, is_shrunk: bool) -> Vec<String> {
        let mut log = Vec::new();
        rerun(seed, without, is_shrunk, |line| log.push(line.to_owned())).expect("the rule is known");
        log
    }

    #[test]
    fn a_seed_run_twice_gives_the_same_log() {
        for seed in 0..100 {
            for frame in frames_of(seed, None).expect("no rule is named") {
                let (first, second) = (frame.run(seed, true), frame.run(seed, true));
                assert!(first == second, "seed {seed} of {frame:?}");
                assert!(first.trace.len() > 20, "{:?}", first.trace);
            }
        }
    }

    /// The first seed that breaks a promise without a rule.
    fn failure_without(name: &str) -> Failure {
        let seeds = Seeds {
            first: 0,
            count: 20_000,
            time: Duration::MAX,
        };
        let summary = run_many(seeds, |seed| frames_of(seed, Some(name)).expect("it is known"), |_| {});
        summary.failure.expect("without it a promise is broken")
    }

    #[test]
    fn a_failure_prints_one_line_that_gives_the_same_log_and_shrinks_its_schedule() {
        for name in ["one_cursor", "repeat_unknown", "DropOldResults"] {
            // given
            let failure = failure_without(name);
            let whole = failure.frame.run(failure.seed, false);

            // when
            let shrunk = shrink(&failure, SHRINK_RUNS_MAX);
            let told = told_of(&failure, &shrunk, Some(name));

            // then what is left fails in the same way, and is less
            assert_eq!(
                shrunk.outcome.broken.as_deref().map(Shrunk::what),
                Some(Shrunk::what(&failure.broken))
            );
            let (left, all) = (
                shrunk.outcome.faults.len() + shrunk.rows(),
                whole.faults.len() + whole.rows,
            );
            println!("{left} of {all} faults and rows are left\n{told}");
            assert!(left < all, "nothing could be left out\n{told}");
            let again = shrunk
                .frame
                .leaving_out(shrunk.left_out.clone())
                .run(failure.seed, false);
            assert_eq!(again, shrunk.outcome);

            // and one line runs the seed again, to the same log
            let line = format!("make simulate SEED={} WITHOUT={name}", failure.seed);
            let lines: Vec<&str> = told.lines().filter(|told| told.contains("make ")).collect();
            assert_eq!(lines, [format!("  {line}")]);
            let log = log_of(failure.seed, Some(name), false);
            assert_eq!(log, log_of(failure.seed, Some(name), false));
            assert!(log.contains(&format!("=> {}", failure.broken)), "{}", log.join("\n"));
            assert_ne!(log_of(failure.seed, Some(name), true), log);
        }
    }

    #[test]
    fn a_rule_that_nobody_knows_is_refused() {
        let refused = rerun(1, Some("no_such_rule"), false, |_| {});
        assert!(refused.expect_err("it is unknown").to_string().contains("no_such_rule"));
    }
}
