//! The report of a run: `target/reports/<name>.json`, and the same facts as a table.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::folders;
use crate::invariants::Verdict;

/// What a run has found. Members that do not apply are left out.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Whether everything held.
    pub ok: bool,
    /// The kind of stack.
    pub stack: String,
    /// The commit that was built, with `-dirty` where files differ from it.
    pub commit: String,
    /// When the run began.
    pub started_at: String,
    /// How long it took.
    pub duration_seconds: f64,
    /// What the audit has found.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// From a record's append to its outcome's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<Latency>,
    /// What was broken on purpose, by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub faults: BTreeMap<String, Faults>,
    /// Figures with their goals.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub goals: Vec<Goal>,
    /// Figures without a goal, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
    /// What this stack could not show, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
}

/// Milliseconds by rank.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half are faster.
    pub p50: f64,
    /// One in a hundred is slower.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

impl Latency {
    /// The ranks of a sample, or `None` of an empty one.
    pub fn of(mut sample_ms: Vec<f64>) -> Option<Self> {
        sample_ms.sort_by(f64::total_cmp);
        Some(Self {
            p50: rank(&sample_ms, 50)?,
            p99: rank(&sample_ms, 99)?,
            max: rank(&sample_ms, 100)?,
        })
    }
}

/// The faults of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Faults {
    /// How many there were.
    pub count: u64,
    /// Until work went on: half were faster.
    pub recovery_ms_p50: f64,
    /// The slowest.
    pub recovery_ms_max: f64,
}

impl Faults {
    /// Of one kind, by how long each took to be overcome.
    pub fn of(mut recovery_ms: Vec<f64>) -> Self {
        recovery_ms.sort_by(f64::total_cmp);
        Self {
            count: recovery_ms.len() as u64,
            recovery_ms_p50: rank(&recovery_ms, 50).unwrap_or_default(),
            recovery_ms_max: rank(&recovery_ms, 100).unwrap_or_default(),
        }
    }
}

/// A figure and what it should be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goal {
    /// What was measured, with its unit.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// The bound.
    pub goal: f64,
    /// Whether it was met.
    pub met: bool,
}

impl Goal {
    /// A figure that should be `goal` or more.
    pub fn at_least(name: &str, value: f64, goal: f64) -> Self {
        Self {
            name: name.to_owned(),
            value,
            goal,
            met: value >= goal,
        }
    }

    /// A figure that should be `goal` or less.
    pub fn at_most(name: &str, value: f64, goal: f64) -> Self {
        Self {
            name: name.to_owned(),
            value,
            goal,
            met: value <= goal,
        }
    }
}

/// The clock of a run.
#[derive(Debug, Clone, Copy)]
pub struct Began {
    at: DateTime<Utc>,
    instant: Instant,
}

impl Began {
    /// The run begins now.
    pub fn now() -> Self {
        Self {
            at: Utc::now(),
            instant: Instant::now(),
        }
    }

    /// How long ago that was.
    pub fn elapsed(&self) -> Duration {
        self.instant.elapsed()
    }

    /// A report of the run that ends now; `ok` says what the verdict says.
    pub fn report(&self, stack: &str, verdict: Verdict) -> Report {
        Report {
            ok: verdict.is_clean(),
            stack: stack.to_owned(),
            commit: commit(),
            started_at: self.at.to_rfc3339_opts(SecondsFormat::Millis, true),
            duration_seconds: self.elapsed().as_secs_f64(),
            verdict: Some(verdict),
            ..Report::default()
        }
    }
}

impl Report {
    /// Writes `target/reports/<name>.json` and returns its path.
    pub fn write(&self, name: &str) -> anyhow::Result<PathBuf> {
        write(name, self)
    }

    /// The facts as lines of name and value.
    pub fn table(&self) -> String {
        let facts = serde_json::to_value(self).expect("a report is JSON");
        let mut rows = Vec::new();
        flatten("", &facts, &mut rows);
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        rows.iter()
            .map(|(name, value)| format!("  {name:<width$}  {value}\n"))
            .collect()
    }
}

/// Writes facts, a report with something beside it, to `target/reports/<name>.json` and returns the path.
pub fn write(name: &str, facts: &impl Serialize) -> anyhow::Result<PathBuf> {
    let folder = folders::target()?.join("reports");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let file = folder.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(facts).context("a report is JSON")?;
    fs::write(&file, text + "\n").with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}

fn flatten(name: &str, value: &serde_json::Value, rows: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(members) if members.contains_key("goal") => {
            let met = if members["met"] == true { "met" } else { "MISSED" };
            let label = members["name"].as_str().unwrap_or_default();
            rows.push((
                format!("goal: {label}"),
                format!("{} (goal {}: {met})", members["value"], members["goal"]),
            ));
        }
        serde_json::Value::Object(members) => {
            for (member, value) in members {
                let path = if name.is_empty() {
                    member.clone()
                } else {
                    format!("{name}.{member}")
                };
                flatten(&path, value, rows);
            }
        }
        serde_json::Value::Array(elements) => elements.iter().for_each(|element| flatten(name, element, rows)),
        serde_json::Value::String(text) => rows.push((name.to_owned(), text.clone())),
        other => rows.push((name.to_owned(), other.to_string())),
    }
}

/// The value that `percent` of the sorted sample do not exceed.
fn rank(sorted: &[f64], percent: usize) -> Option<f64> {
    let place = (sorted.len() * percent).div_ceil(100).checked_sub(1)?;
    sorted.get(place).copied()
}

/// The commit that the sources are at, with `-dirty` where files differ from it. A run that is kept asks when it
/// begins: what is changed while it goes on is not what ran. The page that runs are kept in says nothing of the sources.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let said = Command::new("git")
            .current_dir(folders::workspace())
            .args(arguments)
            .output();
        let said = said.ok().filter(|said| said.status.success())?;
        Some(String::from_utf8_lossy(&said.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    let changes = git(&[
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ".",
        ":(exclude)docs/chaos.md",
    ]);
    match (commit, changes) {
        (Some(commit), Some(changes)) if changes.is_empty() => commit,
        (Some(commit), Some(_)) => format!("{commit}-dirty"),
        (None, _) | (_, None) => "unknown".to_owned(), // no repository, or no git: the report is still worth having
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_values_of_the_sample() {
        assert_eq!(Latency::of(vec![]), None);
        let latency = Latency::of((1..=200).map(f64::from).collect()).unwrap();
        assert_eq!((latency.p50, latency.p99, latency.max), (100.0, 198.0, 200.0));
    }

    #[test]
    fn a_table_names_each_member_and_each_goal() {
        let mut report = Began::now().report("kafka", Verdict::default());
        report.goals.push(Goal::at_most("resident MB", 120.0, 100.0));
        report.faults.insert("kill".to_owned(), Faults::of(vec![3.0, 1.0]));
        let table = report.table();
        assert!(table.contains("faults.kill.recovery_ms_max  3.0"), "{table}");
        assert!(table.contains("120.0 (goal 100.0: MISSED)"), "{table}");
        assert!(table.contains("publish_duplicates"), "{table}");
    }
}
