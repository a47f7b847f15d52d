//! Plots of what was measured, as SVG for documents.
//!
//! | | |
//! |---|---|
//! | [`lines`] | how one figure follows another |
//! | [`bars`] | a figure of several candidates, with its spread over the rounds |
//! | [`stacked`] | what a figure is made of |
//! | [`latencies`] | every percentile of latencies, the far ones as wide as the near ones |
//!
//! Lengths begin at 0, unless an axis is logarithmic. Names stand beside what they name, as far as there is
//! room for them: a page is as wide as its texts need.

use std::path::Path;

use anyhow::{Context, ensure};

mod axis;
mod bars;
mod curves;
mod page;

pub use bars::{bars, stacked};
pub use curves::{latencies, lines};

/// A curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// Where it goes along, in this order.
    pub points: Vec<(f64, f64)>,
}

/// A figure with one value a round.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// Whose figure it is.
    pub name: String,
    /// One value a round; the bar is as long as their median.
    pub values: Vec<f64>,
}

/// Says which plot failed, as many are drawn in one run.
fn of<T>(file: &Path, drawn: anyhow::Result<T>) -> anyhow::Result<T> {
    drawn.with_context(|| format!("draw the plot {}", file.display()))
}

/// An axis that begins at 0 shows nothing below, and no axis shows what is no number.
fn check_shown(name: &str, values: impl IntoIterator<Item = f64>) -> anyhow::Result<()> {
    for value in values {
        ensure!(value.is_finite() && value >= 0.0, "{name} has a value of {value}");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
