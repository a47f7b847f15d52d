//! The bounds that must hold, from the facts of a run. Pure, so that each can be shown to fail.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::Verdict;
use harness::report::Goal;

use crate::kinds::Kind;

/// An acknowledged row is marked within so long, unless Postgres is away: what was acknowledged in this time may
/// be published again by whoever takes over.
const MARKED_WITHIN: Duration = Duration::from_secs(1);

/// What one fault has cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Struck {
    pub(crate) kind: Kind,
    pub(crate) recovery: Duration,
    /// Records that came again, from this fault until the next one.
    pub(crate) duplicates: u64,
}

/// What `claimfirst reconcile` said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reconciled {
    /// 0 clean, 1 something is wrong, 2 could not find out.
    pub(crate) code: i32,
    /// Findings that are wrong or not finished, by code.
    pub(crate) findings: BTreeMap<String, u64>,
}

/// Everything that is judged at the end of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// By the harness's judge.
    pub(crate) verdict: Verdict,
    pub(crate) reconciled: Reconciled,
    /// Attempts that rows have counted. Nothing in the load can fail for a reason of its own.
    pub(crate) attempts: u64,
    /// Rows set aside as FAILED, likewise.
    pub(crate) failed: u64,
    pub(crate) struck: Vec<Struck>,
    /// Rows that a publisher has with its client at most.
    pub(crate) in_flight_max: u64,
    /// Rows a second that the load leads to.
    pub(crate) rows_per_second: u64,
}

impl Facts {
    /// Each bound with its value.
    pub(crate) fn goals(&self) -> Vec<Goal> {
        let none = |name: &str, count: u64| Goal::at_most(name, count as f64, 0.0);
        let verdict = &self.verdict;
        let mut goals = vec![
            none("lost", verdict.lost),
            none("decided twice", verdict.decided_twice),
            none("inversions", verdict.order_violations),
            none("attempts burnt by infrastructure", self.attempts),
            none("rows FAILED by infrastructure", self.failed),
            none("other problems found by the judge", self.other_problems()),
            none(
                "exit code of claimfirst reconcile",
                self.reconciled.code.unsigned_abs().into(),
            ),
            none(
                "findings of claimfirst reconcile",
                self.reconciled.findings.values().sum(),
            ),
        ];
        let crashes = self.struck.iter().filter(|struck| struck.kind.is_publisher_crash());
        if let Some(most) = crashes.map(|struck| struck.duplicates).max() {
            goals.push(Goal::at_most(
                "duplicates of a publisher's crash, at most",
                most as f64,
                self.duplicates_max() as f64,
            ));
        }
        for kind in Kind::ALL {
            let of_kind = self.struck.iter().filter(|struck| struck.kind == kind);
            if let Some(slowest) = of_kind.map(|struck| struck.recovery).max() {
                goals.push(Goal::at_most(
                    &format!("seconds to recover, {}", kind.name()),
                    (slowest.as_secs_f64() * 100.0).round() / 100.0,
                    kind.recovery_max().as_secs_f64(),
                ));
            }
        }
        goals
    }

    /// Whether every bound holds.
    pub(crate) fn hold(&self) -> bool {
        self.goals().iter().all(|goal| goal.met)
    }

    /// What is in flight, and what is acknowledged and not marked yet.
    fn duplicates_max(&self) -> u64 {
        self.in_flight_max + self.rows_per_second * MARKED_WITHIN.as_secs()
    }

    /// Problems that no number above counts, such as a row with another payload than its record.
    fn other_problems(&self) -> u64 {
        let verdict = &self.verdict;
        let counted = verdict.lost + verdict.decided_twice + verdict.order_violations;
        (verdict.problems.len() as u64).saturating_sub(counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Facts of a run in which everything held.
    fn held() -> Facts {
        let struck = |kind, recovery_ms, duplicates| Struck {
            kind,
            recovery: Duration::from_millis(recovery_ms),
            duplicates,
        };
        Facts {
            struck: vec![
                struck(Kind::PublisherKilled, 2_700, 60),
                struck(Kind::PostgresKilled, 400, 900),
            ],
            in_flight_max: 200,
            rows_per_second: 350,
            ..Facts::default()
        }
    }

    fn missed(break_it: impl FnOnce(&mut Facts)) -> Vec<String> {
        let mut facts = held();
        break_it(&mut facts);
        assert_eq!(facts.hold(), facts.goals().iter().all(|goal| goal.met));
        facts
            .goals()
            .into_iter()
            .filter(|goal| !goal.met)
            .map(|goal| goal.name)
            .collect()
    }

    #[test]
    fn a_run_in_which_everything_held_is_passed() {
        assert!(held().hold(), "{:?}", held().goals());
    }

    #[test]
    fn each_bound_fails_alone_when_it_is_broken() {
        let none: [String; 0] = [];
        assert_eq!(missed(|_| {}), none);
        let problem = |facts: &mut Facts| facts.verdict.problems.push("what was found".to_owned());
        assert_eq!(
            missed(|facts| {
                facts.verdict.lost = 1;
                problem(facts);
            }),
            ["lost"]
        );
        assert_eq!(
            missed(|facts| {
                facts.verdict.decided_twice = 1;
                problem(facts);
            }),
            ["decided twice"]
        );
        assert_eq!(
            missed(|facts| {
                facts.verdict.order_violations = 1;
                problem(facts);
            }),
            ["inversions"]
        );
        assert_eq!(missed(problem), ["other problems found by the judge"]);
        assert_eq!(missed(|facts| facts.attempts = 1), ["attempts burnt by infrastructure"]);
        assert_eq!(missed(|facts| facts.failed = 1), ["rows FAILED by infrastructure"]);
        assert_eq!(
            missed(|facts| facts.reconciled.code = 2),
            ["exit code of claimfirst reconcile"]
        );
        assert_eq!(
            missed(|facts| facts.reconciled.findings.extend([("row-pending".to_owned(), 1)])),
            ["findings of claimfirst reconcile"]
        );
        assert_eq!(
            missed(|facts| facts.struck[0].duplicates = 551),
            ["duplicates of a publisher's crash, at most"]
        );
        assert_eq!(
            missed(|facts| facts.struck[1].recovery = Duration::from_secs(16)),
            ["seconds to recover, postgres_killed"]
        );
    }

    #[test]
    fn duplicates_of_other_faults_have_no_bound() {
        assert_eq!(missed(|facts| facts.struck[1].duplicates = 5_000), [] as [String; 0]);
    }
}
