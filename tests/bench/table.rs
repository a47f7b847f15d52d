//! What was measured, as a table for documents and for a terminal.

use serde::Serialize;

use crate::figures;

/// One measure with its values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was measured.
    pub measure: String,
    /// One value a round.
    pub values: Vec<f64>,
    /// What the values count: `events/s`, `ms`; empty for a ratio.
    pub unit: String,
    /// The bound that the median has to keep.
    pub goal: Option<Bound>,
    /// What a reader has to know beside it; may be empty.
    pub note: String,
}

/// What a median has to keep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// This much, or more.
    AtLeast(f64),
    /// This much, or less.
    AtMost(f64),
}

impl Bound {
    /// Whether a value keeps it.
    pub fn is_kept_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    /// In words.
    pub fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!("at least {}", figures::shortest(bound)),
            Self::AtMost(bound) => format!("at most {}", figures::shortest(bound)),
        }
    }
}

impl Row {
    /// The value in the middle. `None` if there is none, or if a round brought something that is no number.
    pub fn median(&self) -> Option<f64> {
        figures::median(&self.values)
    }

    /// The least and the most; `None` as for the median.
    pub fn spread(&self) -> Option<(f64, f64)> {
        figures::spread(&self.values)
    }

    /// Whether the median keeps the goal; `None` without a goal. What has no median does not keep it.
    pub fn is_met(&self) -> Option<bool> {
        let goal = self.goal?;
        Some(self.median().is_some_and(|median| goal.is_kept_by(median)))
    }

    fn cells(&self) -> [String; 5] {
        let decimals = self.decimals();
        let median = match self.median() {
            Some(median) => format!("{} {}", figures::fixed(median, decimals), self.unit),
            None => "none".to_owned(),
        };
        let spread = match self.spread() {
            Some(_) if self.values.len() == 1 => "one round".to_owned(),
            Some((least, most)) => {
                let [least, most] = [least, most].map(|value| figures::fixed(value, decimals));
                format!("{least} to {most}")
            }
            None => String::new(),
        };
        let met = match self.is_met() {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        [
            self.measure.clone(),
            median.trim_end().to_owned(),
            spread,
            self.goal.map(Bound::text).unwrap_or_default(),
            met.to_owned(),
        ]
    }

    /// So many that the median that is shown stands on the same side of the goal as the one that was measured:
    /// 0.24996 must not read 0.250 beside "at least 0.25: no".
    fn decimals(&self) -> usize {
        const DECIMALS_MAX: usize = 9;
        let sensible = figures::decimals(&self.values);
        let (Some(goal), Some(median)) = (self.goal, self.median()) else {
            return sensible;
        };
        let shown = |decimals: usize| {
            let text = format!("{median:.decimals$}");
            text.parse().expect("it was written from a number")
        };
        (sensible..DECIMALS_MAX)
            .find(|decimals| goal.is_kept_by(shown(*decimals)) == goal.is_kept_by(median))
            .unwrap_or(DECIMALS_MAX)
    }
}

const HEADINGS: [&str; 5] = ["measure", "median", "min to max", "goal", "met"];
/// Figures stand at the right of their column, so that their digits can be compared.
const IS_RIGHT: [bool; 5] = [false, true, true, false, false];

/// A table as Markdown, and the notes as a list below it.
pub fn markdown(rows: &[Row]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&HEADINGS.map(str::to_owned));
    text += &line(&IS_RIGHT.map(|is_right| if is_right { "---:" } else { "---" }.to_owned()));
    for row in rows {
        text += &line(&row.cells().map(|cell| in_one_line(&cell).replace('|', "\\|")));
    }
    let notes = notes(rows).map(|(measure, note)| format!("- {measure}: {note}\n"));
    let notes: String = notes.collect();
    if !notes.is_empty() {
        text += "\n";
        text += &notes;
    }
    text
}

/// The same, aligned by spaces.
pub fn terminal(rows: &[Row]) -> String {
    let mut lines = vec![HEADINGS.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| row.cells().map(|cell| in_one_line(&cell))));
    let width = |column: usize| {
        let widths = lines.iter().map(|cells| cells[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for cells in &lines {
        let padded = (0..cells.len()).map(|column| {
            let (cell, width) = (&cells[column], widths[column]);
            if IS_RIGHT[column] {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
        let padded: Vec<String> = padded.collect();
        text += padded.join("   ").trim_end();
        text += "\n";
    }
    let notes = notes(rows).map(|(measure, note)| format!("{measure}: {note}\n"));
    let notes: String = notes.collect();
    if !notes.is_empty() {
        text += "\n";
        text += &notes;
    }
    text
}

fn notes(rows: &[Row]) -> impl Iterator<Item = (String, String)> {
    let noted = rows.iter().filter(|row| !row.note.is_empty());
    noted.map(|row| (in_one_line(&row.measure), in_one_line(&row.note)))
}

fn in_one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests;
