//! What is printed, and kept as a report.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use crate::list::Mutant;
use crate::runs::{End, Fate};

/// What a test says is cut here.
const SAYS_CHARS: usize = 110;

/// One line of it for each mutant, in the order of their ends.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

struct Row {
    place: usize,
    name: String,
    breaks: String,
    test: String,
    took: Option<Duration>,
    survived: bool,
    says: String,
}

impl Table {
    /// Prints what became of a mutant, and keeps it.
    pub(crate) fn add(&mut self, mutant: &Mutant, fate: Fate) {
        let (survived, says) = match fate.end {
            End::Killed(says) => (false, shortened(&says)),
            End::KilledByTheLimit => (false, "its test hangs, and the limit ends it".to_owned()),
            End::Survived(why) => (true, why),
        };
        self.push(Row {
            place: mutant.place,
            name: mutant.name.clone(),
            breaks: mutant.breaks.clone(),
            test: mutant.test[2].clone(),
            took: Some(fate.took),
            survived,
            says,
        });
    }

    /// The same of a rule that the simulation switches off.
    pub(crate) fn add_rule(&mut self, test: &str, is_found: bool, says: &str) {
        self.push(Row {
            place: usize::MAX,
            name: test.rsplit("::").next().unwrap_or(test).to_owned(),
            breaks: "what the test says: a promise that a run broke".to_owned(),
            test: test.to_owned(),
            took: None,
            survived: !is_found,
            says: shortened(says),
        });
    }

    fn push(&mut self, row: Row) {
        let result = if row.survived { "SURVIVED" } else { "killed" };
        let took = row
            .took
            .map(|took| format!("{:.1} s", took.as_secs_f64()))
            .unwrap_or_default();
        println!("{result:<8}  {:<44} {took:>7}  {}", row.name, row.test);
        println!("{:<8}  breaks {}", "", row.breaks);
        println!("{:<8}  {}", "", row.says);
        self.rows.push(row);
    }

    /// Something that is told at the end.
    pub(crate) fn note(&mut self, text: String) {
        println!("{text}");
        self.notes.push(text);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn survivors(&self) -> usize {
        self.rows.iter().filter(|row| row.survived).count()
    }

    fn count(&self) -> String {
        let survived = self.survivors();
        format!(
            "{} mutants: {} killed, {survived} survived",
            self.rows.len(),
            self.rows.len() - survived
        )
    }

    /// Writes it as Markdown.
    pub(crate) fn keep(&self, file: &Path) -> anyhow::Result<()> {
        let mut text = String::from("| mutant | breaks | killed by | which says | s |\n|---|---|---|---|---|\n");
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| row.place);
        for row in rows {
            let took = row.took.map(|took| format!("{:.1}", took.as_secs_f64()));
            let says = row.says.lines().next().unwrap_or_default().replace('|', "\\|");
            let result = if row.survived { "**SURVIVED** " } else { "" };
            writeln!(
                text,
                "| {} | {} | {result}`{}` | {says} | {} |",
                row.name,
                row.breaks,
                row.test,
                took.unwrap_or_default()
            )?;
        }
        writeln!(text, "\n{}; {}.", self.count(), self.notes.join("; "))?;
        fs::create_dir_all(file.parent().context("a report lies in a folder")?)?;
        fs::write(file, text).with_context(|| format!("write {}", file.display()))
    }

    /// Prints the sum; a survivor is a failure.
    pub(crate) fn end(&self) -> ExitCode {
        println!("\n{}", self.count());
        for row in self.rows.iter().filter(|row| row.survived) {
            println!("survived: {}, which breaks {}", row.name, row.breaks);
        }
        if self.survivors() == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

fn shortened(says: &str) -> String {
    let line = says.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SAYS_CHARS) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line,
    }
}
