//! What is measured, and how it is judged.

pub mod end_to_end;
pub mod growth;
pub mod idle;
pub mod latency;
pub mod publisher;
mod scene;
mod snapshot;
pub mod soak;
pub mod triage;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::{Database, Running, Service, folders};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::counted::Counted;
use crate::course::{Course, Cpu};
use crate::site::Site;
use crate::table::Row;

/// How long a start or a drain may take.
const SOON: Duration = Duration::from_secs(60);
/// How long the proof of ten million rows may take.
const RECONCILED_WITHIN: Duration = Duration::from_secs(1_800);
/// Rows of a round that does not count, at least: the broker compiles what it runs often, for some seconds.
const WARM_ROWS: u64 = 200_000;

/// What is asked of a part.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Rows of a round.
    pub rows: u64,
    /// Rounds in which everybody takes a turn.
    pub rounds: usize,
    /// Claims that are kept from before, where that is measured.
    pub claims: u64,
    /// Rows of a large backlog, where that is measured.
    pub backlog: u64,
    /// Minutes of a soak.
    pub minutes: u64,
    /// Whether two instances of each service are measured beside one, from topic to topic.
    pub instances: bool,
    /// Only contestants whose name holds this, or one of these, with `|` between them.
    pub only: String,
    /// Where the services lie as they were before a change, to be measured beside those of now.
    pub before: Option<PathBuf>,
}

impl Asked {
    fn wants(&self, name: &str) -> bool {
        self.only.split('|').any(|part| name.contains(part))
    }
}

/// Everybody's rounds, by name.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Heats(BTreeMap<&'static str, Vec<Course>>);

impl Heats {
    fn add(&mut self, name: &'static str, course: Course) {
        let courses = self.0.entry(name).or_default();
        courses.push(course);
        let round = courses.len();
        let cpu = course.cpu.map_or_else(String::new, |cpu| {
            format!(
                "   CPU us: own {:5.1}  Postgres {:5.1}  broker {:5.1}",
                cpu.own, cpu.postgres, cpu.broker
            )
        });
        println!(
            "  {round}  {name:<38} {:>8.0} /s{cpu}   log {:.0} B",
            course.per_second, course.wal_bytes
        );
    }

    /// Everybody's rounds, by name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &[Course])> {
        self.0.iter().map(|(name, courses)| (*name, &courses[..]))
    }

    fn of(&self, name: &str) -> &[Course] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// One's rate as a multiple of another's, by round.
    fn rates(&self, one: &str, other: &str) -> Vec<f64> {
        let pairs = self.of(one).iter().zip(self.of(other));
        pairs.map(|(one, other)| one.per_second / other.per_second).collect()
    }

    /// The CPU of all of these together as a share of one's, by round; nothing where CPU is not known.
    fn cpu_share(&self, limits: &[&str], one: &str) -> Vec<f64> {
        let total = |name: &str, round: usize| Some(self.of(name).get(round)?.cpu?.total());
        (0..self.of(one).len())
            .filter_map(|round| {
                let limit: Option<f64> = limits.iter().map(|name| total(name, round)).sum();
                Some(limit? / total(one, round)?)
            })
            .collect()
    }

    /// One figure of somebody's rounds.
    fn each(&self, name: &str, figure: impl Fn(&Course) -> Option<f64>) -> Vec<f64> {
        self.of(name).iter().filter_map(figure).collect()
    }
}

/// What a part has found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Found {
    /// Measures, with their goals.
    pub rows: Vec<Row>,
    /// The rounds behind them.
    pub heats: Heats,
    /// Latencies in microseconds, by name, for a plot.
    #[serde(skip)]
    pub latencies: Vec<(String, Histogram<u64>)>,
}

impl Found {
    /// A row, unless nobody has measured it.
    fn row(&mut self, measure: &str, unit: &str, values: Vec<f64>, goal: Option<crate::table::Bound>, note: &str) {
        if !values.is_empty() {
            self.rows.push(Row {
                measure: measure.to_owned(),
                values,
                unit: unit.to_owned(),
                goal,
                note: note.to_owned(),
            });
        }
    }

    /// Ranks of a latency, and its curve.
    fn latency(&mut self, name: &str, latency: &Histogram<u64>) {
        let ms = |micros: u64| micros as f64 / 1_000.0;
        let ranks = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
        let ranks = ranks.map(|(rank, quantile)| (rank, ms(latency.value_at_quantile(quantile))));
        let line: Vec<String> = ranks
            .iter()
            .map(|(rank, value)| format!("{rank} {value:8.2}"))
            .collect();
        println!("  {name:<48} ms: {}  max {:8.2}", line.join("  "), ms(latency.max()));
        for (rank, value) in ranks.into_iter().chain([("max", ms(latency.max()))]) {
            self.row(&format!("{name}, {rank}"), "ms", vec![value], None, "");
        }
        self.latencies.push((name.to_owned(), latency.clone()));
    }

    /// What Postgres has counted of our own rounds.
    fn counted(&mut self, what: &str, counted: &[Counted]) {
        let mut row = |counts: &str, unit: &str, of: fn(&Counted) -> f64| {
            let values = counted.iter().map(of).collect();
            self.row(&format!("{what}, {counts}"), unit, values, None, "");
        };
        row("statements", "/event", |counted| counted.statements);
        row("commits", "/event", |counted| counted.commits);
        row("dead tuples", "/event", |counted| counted.dead_tuples);
        row("indexes", "B/event", |counted| counted.index_bytes);
    }

    /// Rate, CPU and log of our own rounds.
    fn costs(&mut self, name: &'static str, what: &str) {
        self.row(
            &format!("{what}, rate"),
            "events/s",
            self.heats.each(name, |course| Some(course.per_second)),
            None,
            "",
        );
        let mut cpu = |part: &str, of: fn(Cpu) -> f64| {
            let values = self.heats.each(name, |course| course.cpu.map(of));
            self.row(&format!("{what}, CPU of {part}"), "us/event", values, None, "");
        };
        cpu("ours", |cpu| cpu.own);
        cpu("Postgres", |cpu| cpu.postgres);
        cpu("the broker", |cpu| cpu.broker);
        let values = self.heats.each(name, |course| Some(course.wal_bytes));
        self.row(&format!("{what}, write-ahead log"), "B/event", values, None, "");
    }
}

/// Megabytes that a process had resident at most.
fn resident_peak(running: &Running) -> anyhow::Result<f64> {
    Ok(running.resident_peak_bytes()? as f64 / 1e6)
}

/// Proves that what was just measured was done right: a round counts only then.
///
/// # Errors
/// If `claimfirst reconcile` finds anything, or cannot find out.
async fn reconcile(site: &Site, database: &Database, settings: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut tool = Service::tool("reconcile")
        .set("KAFKA__BROKERS", site.stack.brokers())
        .set("DATABASE__URL", &database.url);
    for (name, value) in settings {
        tool = tool.set(name, value);
    }
    let report = folders::logs()?.join("reconcile.json"); // not where `claimfirst` would write it: the caller's folder
    let report = report.to_str().context("the log folder has a name in UTF-8")?;
    let arguments = ["reconcile", "--report", report];
    let (code, printed, complained) = tool.run_within(&arguments, RECONCILED_WITHIN).await?;
    let code = code.context("it was not killed")?;
    ensure!(code == 0, "what was measured is not right: {printed}{complained}");
    Ok(())
}
