//! What a run has found: a table for people, JSON for machines, a row for the record that is kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use harness::folders;
use harness::report::{self, Report};
use serde::Serialize;

/// Where rows are kept.
const RECORD: &str = "docs/chaos.md";

/// What was asked for, beside what every report says.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Told {
    #[serde(skip)]
    pub(crate) stack: String,
    /// Brokers.
    pub(crate) nodes: usize,
    pub(crate) seed: u64,
}

/// Everything that a run has found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    #[serde(flatten)]
    pub(crate) report: Report,
    #[serde(flatten)]
    pub(crate) told: Told,
    /// Records that came again, by the kind of the fault before them.
    pub(crate) duplicates: BTreeMap<String, u64>,
    /// Services that have ended without being told to, and were started again.
    pub(crate) ended_by_themselves: Vec<String>,
}

impl Outcome {
    /// Writes `target/reports/<name>.json` and returns the path.
    pub(crate) fn write(&self, name: &str) -> anyhow::Result<PathBuf> {
        report::write(name, self)
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |args: std::fmt::Arguments<'_>| writeln!(text, "{args}").expect("a String takes every text");
        if !self.report.faults.is_empty() {
            line(format_args!(
                "fault                      times   recovered p50      max   duplicates"
            ));
        }
        for (kind, faults) in &self.report.faults {
            line(format_args!(
                "{kind:<26} {:>5}       {:>7.2} s  {:>5.2} s   {:>10}",
                faults.count,
                faults.recovery_ms_p50 / 1_000.0,
                faults.recovery_ms_max / 1_000.0,
                self.duplicates.get(kind).copied().unwrap_or_default()
            ));
        }
        line(format_args!(""));
        if let Some(verdict) = &self.report.verdict {
            line(format_args!(
                "{} records in, {} events, {} published, {} duplicates suppressed, {} published again",
                verdict.records_in,
                verdict.events_unique,
                verdict.published,
                verdict.duplicates_suppressed,
                verdict.publish_duplicates
            ));
            for problem in &verdict.problems {
                line(format_args!("problem: {problem}"));
            }
        }
        for ended in &self.ended_by_themselves {
            line(format_args!("started again: {ended}"));
        }
        for skipped in &self.report.skipped {
            line(format_args!("skipped: {skipped}"));
        }
        for goal in &self.report.goals {
            let met = if goal.met { "holds" } else { "BROKEN" };
            line(format_args!(
                "{met:<7} {:<50} {:>10} at most {}",
                goal.name, goal.value, goal.goal
            ));
        }
        text
    }

    /// Appends a row to the tracked record.
    pub(crate) fn keep(&self) -> anyhow::Result<()> {
        let file = folders::workspace().join(RECORD);
        let text = fs::read_to_string(&file).with_context(|| format!("read {RECORD}"))?;
        fs::write(&file, text + &self.row() + "\n").with_context(|| format!("write {RECORD}"))
    }

    /// What an outage has shown, in the place where a row of faults has their kinds.
    fn outage(&self) -> Option<String> {
        let seconds = self.report.figures.get("outage_seconds")?;
        let value = |name: &str| {
            self.report
                .goals
                .iter()
                .find(|goal| goal.name == name)
                .map(|goal| goal.value)
        };
        let most = value("triage: resident, MB")?.max(value("publisher: resident, MB")?);
        Some(format!(
            "Kafka out of reach for {seconds} s: at work {} s after its return, {most} MB resident at most",
            value("seconds to recover")?
        ))
    }

    fn row(&self) -> String {
        let Report {
            ok,
            commit,
            started_at,
            faults,
            goals,
            verdict,
            ..
        } = &self.report;
        let count: u64 = faults.values().map(|kind| kind.count).sum();
        let kinds: Vec<String> = faults
            .iter()
            .map(|(kind, faults)| {
                format!(
                    "{kind} {} ({:.1}, {:.1}; {})",
                    faults.count,
                    faults.recovery_ms_p50 / 1_000.0,
                    faults.recovery_ms_max / 1_000.0,
                    self.duplicates.get(kind).copied().unwrap_or_default()
                )
            })
            .collect();
        let broken: Vec<&str> = goals
            .iter()
            .filter(|goal| !goal.met)
            .map(|goal| goal.name.as_str())
            .collect();
        let bounds = match (ok, broken.is_empty()) {
            (true, _) => format!("all {} hold", goals.len()),
            (false, _) => format!("BROKEN: {}", broken.join(", ")),
        };
        let crash = goals
            .iter()
            .find(|goal| goal.name.starts_with("duplicates of a publisher"));
        let crash = crash.map_or_else(|| "none".to_owned(), |goal| format!("{} of {}", goal.value, goal.goal));
        let verdict = verdict.clone().unwrap_or_default();
        format!(
            "| {} | `{commit}` | {}, {} | {} | {count} | {} | {} | {} | {} | {} | {crash} | {bounds} |",
            started_at.split('T').next().unwrap_or_default(),
            self.told.stack,
            self.told.nodes,
            self.told.seed,
            self.outage().unwrap_or_else(|| kinds.join(", ")),
            verdict.records_in,
            verdict.lost,
            verdict.decided_twice,
            verdict.order_violations,
        )
    }
}
