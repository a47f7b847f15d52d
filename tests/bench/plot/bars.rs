//! Bars that lie, one below the other, with their names on the left and their values on the right.

use std::path::Path;

use anyhow::ensure;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::axis::Axis;
use super::page::{self, Canvas, GRID, Heading, INK, Sample, TEXT_SIZE};
use super::{Bar, check_shown, of};
use crate::figures;

const MARGIN: u32 = 20;
/// From the left end of the axis to its right end.
const LENGTH: u32 = 560;
/// Of a bar with the room above and below it.
const ROW_HEIGHT: u32 = 38;
const BAR_HALF: i32 = 12;
const WHISKER_HALF: i32 = 6;
const X_TEXTS_HEIGHT: u32 = 58;
/// Between a bar and the texts beside it.
const TEXT_GAP: i32 = 10;

/// Draws a bar as long as the median of its rounds, with a whisker from the least to the most of them, and writes
/// the median beside it. `unit` names the axis; one round alone has no whisker.
///
/// # Errors
/// If there is no bar, one without a value, or a value that is no number or below 0; and if the file cannot be
/// written.
pub fn bars(file: &Path, title: &str, unit: &str, bars: &[Bar]) -> anyhow::Result<()> {
    of(file, draw_bars(file, title, unit, bars))
}

/// Draws what values are made of: a bar for each, with its parts one after the other, and writes the total beside
/// it. `parts` are for the legend, `unit` names the axis; a part is told by its colour, so six are enough.
///
/// # Errors
/// If there is no part or no bar, a bar with another number of values than there are parts, or a value that is no
/// number or below 0; and if the file cannot be written.
pub fn stacked(
    file: &Path,
    title: &str,
    unit: &str,
    parts: &[&str],
    bars: &[(String, Vec<f64>)],
) -> anyhow::Result<()> {
    of(file, draw_stacked(file, title, unit, parts, bars))
}

/// A bar with what stands beside it.
struct Row<'a> {
    name: &'a str,
    parts: Vec<f64>,
    whisker: Option<(f64, f64)>,
    /// Of its values.
    decimals: usize,
}

impl Row<'_> {
    fn total(&self) -> f64 {
        self.parts.iter().sum()
    }

    fn text(&self) -> String {
        figures::fixed(self.total(), self.decimals)
    }

    /// Where the drawn ends.
    fn end(&self) -> f64 {
        self.whisker.map_or(self.total(), |(_, most)| most.max(self.total()))
    }
}

fn draw_bars(file: &Path, title: &str, unit: &str, bars: &[Bar]) -> anyhow::Result<()> {
    ensure!(!bars.is_empty(), "there is no bar");
    let mut rows = Vec::new();
    for Bar { name, values } in bars {
        check_shown(name, values.iter().copied())?;
        let (Some(median), Some(spread)) = (figures::median(values), figures::spread(values)) else {
            anyhow::bail!("bar {name} is empty");
        };
        rows.push(Row {
            name,
            parts: vec![median],
            whisker: (values.len() > 1).then_some(spread),
            decimals: figures::decimals(values),
        });
    }
    let unit = if rows.iter().any(|row| row.whisker.is_some()) {
        format!("{unit}: median of the rounds, and from the least to the most")
    } else {
        unit.to_owned()
    };
    draw(file, title, &unit, &[], &rows)
}

fn draw_stacked(
    file: &Path,
    title: &str,
    unit: &str,
    parts: &[&str],
    bars: &[(String, Vec<f64>)],
) -> anyhow::Result<()> {
    ensure!(!parts.is_empty(), "there is no part");
    ensure!(!bars.is_empty(), "there is no bar");
    // All alike, so that the parts visibly make up the total; what has no part in it does not count.
    let all = bars.iter().flat_map(|(_, values)| values).copied();
    let decimals = figures::decimals(&all.filter(|value| *value != 0.0).collect::<Vec<_>>());
    let mut rows = Vec::new();
    for (name, values) in bars {
        let (given, asked) = (values.len(), parts.len());
        ensure!(given == asked, "bar {name} has {given} values for {asked} parts");
        check_shown(name, values.iter().copied())?;
        rows.push(Row {
            name,
            parts: values.clone(),
            whisker: None,
            decimals,
        });
    }
    draw(file, title, unit, parts, &rows)
}

fn draw(file: &Path, title: &str, unit: &str, parts: &[&str], rows: &[Row]) -> anyhow::Result<()> {
    let axis = Axis::linear(unit, 0.0, rows.iter().map(Row::end).fold(0.0, f64::max));
    let widest = |text: fn(&Row) -> u32| rows.iter().map(text).max().unwrap_or_default();
    let left = MARGIN + widest(|row| page::width_of(row.name)) + TEXT_GAP as u32;
    let right = MARGIN + widest(|row| page::width_of(&row.text())) + TEXT_GAP as u32;
    let heading = Heading::new(title, parts, Sample::Block, left + LENGTH + right);
    let rows_height = ROW_HEIGHT * rows.len() as u32;
    let height = heading.height + rows_height + X_TEXTS_HEIGHT + MARGIN / 2;
    page::save(file, &heading, height, |canvas| {
        // A long title makes the axis longer.
        let mut chart = ChartBuilder::on(canvas)
            .margin_top(heading.height)
            .margin_right(right)
            .margin_bottom(MARGIN / 2)
            .y_label_area_size(left)
            .x_label_area_size(X_TEXTS_HEIGHT)
            .build_cartesian_2d(axis.clone(), 0.0..rows.len() as f64)?;
        let text = ("sans-serif", TEXT_SIZE).into_font().color(&INK);
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .label_style(text.clone())
            .axis_desc_style(text)
            .x_desc(&axis.name)
            .draw()?;
        for (number, row) in rows.iter().enumerate() {
            let middle = rows.len() as f64 - number as f64 - 0.5; // the first is the uppermost
            let position = |value: f64| chart.backend_coord(&(value, middle));
            draw_row(canvas, row, position, !parts.is_empty())?;
        }
        Ok(())
    })
}

fn draw_row(canvas: &Canvas, row: &Row, position: impl Fn(f64) -> (i32, i32), is_stacked: bool) -> anyhow::Result<()> {
    let (begin, y) = position(0.0);
    page::write(canvas, row.name, INK, HPos::Right, (begin - TEXT_GAP, y))?;
    let mut below = 0.0;
    for (number, value) in row.parts.iter().enumerate() {
        let (from, to) = (position(below).0, position(below + value).0);
        let corners = [(from, y - BAR_HALF), (to, y + BAR_HALF)];
        canvas.draw(&Rectangle::new(corners, page::colour(number).filled()))?;
        let text = figures::fixed(*value, row.decimals);
        // A part that is too narrow goes without: its colour and the total still tell.
        if is_stacked && page::width_of(&text) as i32 + 6 <= to - from {
            let ink = page::ink_on(page::colour(number));
            page::write(canvas, &text, ink, HPos::Center, (i32::midpoint(from, to), y))?;
        }
        below += value;
    }
    if let Some((least, most)) = row.whisker {
        let (from, to) = (position(least).0, position(most).0);
        let upright = |x| vec![(x, y - WHISKER_HALF), (x, y + WHISKER_HALF)];
        for line in [vec![(from, y), (to, y)], upright(from), upright(to)] {
            canvas.draw(&PathElement::new(line, INK.stroke_width(2)))?;
        }
    }
    let end = position(row.end()).0;
    page::write(canvas, &row.text(), INK, HPos::Left, (end + TEXT_GAP, y))
}
