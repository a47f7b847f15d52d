//! The result of a run: JSON, a table, plots.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use harness::folders;
use harness::report::{commit, write};
use serde::Serialize;

use crate::parts::Found;
use crate::plot::{self, Bar};
use crate::table::{self, Row};

/// A run, as it is kept.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The commit that was built, with `-dirty` where files differ from it.
    pub commit: String,
    /// Cores and their model.
    pub machine: String,
    /// The kind of stack.
    pub stack: &'static str,
    /// What was found, by part.
    pub parts: BTreeMap<&'static str, Found>,
}

impl Report {
    /// Of a run that begins now.
    pub fn new(stack: &'static str) -> Self {
        Self {
            commit: commit(),
            machine: machine(),
            stack,
            parts: BTreeMap::new(),
        }
    }

    /// All measures.
    pub fn rows(&self) -> Vec<Row> {
        self.parts.values().flat_map(|found| found.rows.clone()).collect()
    }

    /// Measures that do not keep their goal.
    pub fn missed(&self) -> usize {
        self.rows().iter().filter(|row| row.is_met() == Some(false)).count()
    }

    /// Writes `bench.json`, `bench.md` and a plot of each part's rates and CPU to `target/reports`; returns the folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self) -> anyhow::Result<PathBuf> {
        write("bench", self)?;
        let folder = folders::target()?.join("reports");
        let text = format!(
            "{}, {}, commit {}\n\n{}",
            self.machine,
            self.stack,
            self.commit,
            table::markdown(&self.rows())
        );
        fs::write(folder.join("bench.md"), text).context("write bench.md")?;
        for (name, found) in &self.parts {
            draw(&folder, name, found).with_context(|| format!("the plots of {name}"))?;
        }
        Ok(folder)
    }
}

fn draw(folder: &std::path::Path, name: &str, found: &Found) -> anyhow::Result<()> {
    let mut bars = Vec::new();
    let mut costs = Vec::new();
    for (who, courses) in found.heats.all() {
        bars.push(Bar {
            name: who.to_owned(),
            values: courses.iter().map(|course| course.per_second).collect(),
        });
        if let Some(cpu) = courses.last().and_then(|course| course.cpu) {
            costs.push((who.to_owned(), vec![cpu.own, cpu.postgres, cpu.broker]));
        }
    }
    if !found.latencies.is_empty() {
        let file = folder.join(format!("bench-{name}.svg"));
        plot::latencies(
            &file,
            &format!("{name}, from when an event was due or committed"),
            &found.latencies,
        )?;
    }
    if bars.is_empty() {
        return Ok(()); // a part without contestants
    }
    let rates = folder.join(format!("bench-{name}-rates.svg"));
    plot::bars(&rates, &format!("{name}: events a second"), "events/s", &bars)?;
    if !costs.is_empty() {
        let file = folder.join(format!("bench-{name}-cpu.svg"));
        let title = format!("{name}: CPU of an event, last round");
        plot::stacked(&file, &title, "us", &["own", "Postgres", "broker"], &costs)?;
    }
    Ok(())
}

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("an unknown CPU", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{cores} cores of {model}")
}
