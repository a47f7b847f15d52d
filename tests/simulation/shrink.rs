//! The fewest faults and rows with which a seed still fails.

use std::collections::BTreeSet;

use crate::runs::{Failure, Frame, Outcome};

/// What does not happen in a run although its seed draws it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// Faults, by their place among those that the seed draws.
    pub(crate) faults: BTreeSet<usize>,
    /// Rows or records, likewise.
    pub(crate) rows: BTreeSet<usize>,
    /// Everything that goes wrong after so many steps.
    pub(crate) after: Option<u64>,
    /// Which schedule of what is left: leaving something out changes what comes behind it, and perhaps takes the
    /// failure away, so others are tried as well.
    pub(crate) variant: u64,
}

impl LeftOut {
    /// Whether what goes wrong is over.
    pub(crate) fn ends_at(&self, step: u64) -> bool {
        self.after.is_some_and(|after| step >= after)
    }
}

/// Schedules that are tried of each candidate.
const VARIANTS: u64 = 6;

/// A schedule that still fails.
#[derive(Debug, Clone)]
pub(crate) struct Shrunk {
    pub(crate) seed: u64,
    pub(crate) frame: Frame,
    pub(crate) left_out: LeftOut,
    pub(crate) outcome: Outcome,
    /// What it took to find.
    pub(crate) runs: usize,
}

impl Shrunk {
    /// Rows that are left.
    pub(crate) fn rows(&self) -> usize {
        self.outcome.rows.saturating_sub(self.left_out.rows.len())
    }

    /// What breaks, without the details that change with the schedule.
    pub(crate) fn what(broken: &str) -> String {
        let kind = broken.split(':').next().unwrap_or(broken);
        kind.chars().filter(|letter| !letter.is_ascii_digit()).collect()
    }

    fn size(&self) -> (usize, usize) {
        (self.outcome.faults.len(), self.rows())
    }

    /// Goes over to leaving out more if some schedule of that fails in the same way and is smaller.
    fn attempt(&mut self, left_out: &LeftOut) -> bool {
        for variant in self.left_out.variant..self.left_out.variant + VARIANTS {
            self.runs += 1;
            let left_out = LeftOut {
                variant,
                ..left_out.clone()
            };
            let outcome = self.frame.leaving_out(left_out.clone()).run(self.seed, false);
            let size = (outcome.faults.len(), outcome.rows.saturating_sub(left_out.rows.len()));
            let is_same = match (&outcome.broken, &self.outcome.broken) {
                (Some(now), Some(before)) => Self::what(now) == Self::what(before),
                _ => false,
            };
            if is_same && size.0 <= self.size().0 && size < self.size() {
                (self.left_out, self.outcome) = (left_out, outcome);
                return true;
            }
        }
        false
    }

    /// Lets all go well from an earlier step on.
    fn end_earlier(&mut self, runs_max: usize) {
        let last = self.outcome.faults.last().map_or(0, |fault| fault.step);
        let mut by = last.div_ceil(2);
        while by > 0 && self.runs < runs_max {
            let last = self.outcome.faults.last().map_or(0, |fault| fault.step);
            let after = Some(last.saturating_sub(by - 1));
            let left_out = LeftOut {
                after,
                ..self.left_out.clone()
            };
            if !self.attempt(&left_out) {
                by /= 2;
            }
        }
    }

    /// Leaves out runs of what `kept` names, from all of it down to one at a time, the last first: what is left out
    /// changes all that comes behind it.
    fn pass(&mut self, runs_max: usize, kept: impl Fn(&Self) -> Vec<usize>, add: impl Fn(&mut LeftOut, &[usize])) {
        let mut length = kept(self).len();
        while length > 0 {
            let mut end = kept(self).len();
            while end > 0 && self.runs < runs_max {
                let candidates = kept(self);
                end = end.min(candidates.len());
                let begin = end.saturating_sub(length);
                let mut left_out = self.left_out.clone();
                add(&mut left_out, &candidates[begin..end]);
                self.attempt(&left_out);
                end = begin;
            }
            length /= 2;
        }
    }
}

/// Leaves out what it can while the seed fails in the same way, in at most so many runs.
pub(crate) fn shrink(failure: &Failure, runs_max: usize) -> Shrunk {
    let mut shrunk = Shrunk {
        seed: failure.seed,
        frame: failure.frame.clone(),
        left_out: LeftOut::default(),
        outcome: failure.frame.run(failure.seed, false),
        runs: 1,
    };
    loop {
        let before = shrunk.size();
        shrunk.end_earlier(runs_max);
        let faults = |shrunk: &Shrunk| shrunk.outcome.faults.iter().map(|fault| fault.number).collect();
        shrunk.pass(runs_max, faults, |left_out, some| left_out.faults.extend(some));
        let rows = |shrunk: &Shrunk| {
            let all = 0..shrunk.outcome.rows;
            all.filter(|row| !shrunk.left_out.rows.contains(row)).collect()
        };
        shrunk.pass(runs_max, rows, |left_out, some| left_out.rows.extend(some));
        if shrunk.size() == before || shrunk.runs >= runs_max {
            return shrunk;
        }
    }
}
