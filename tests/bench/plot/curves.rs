//! Curves with marks.

use std::path::Path;

use anyhow::ensure;
use hdrhistogram::Histogram;
use plotters::prelude::*;

use super::axis::Axis;
use super::page::{self, Canvas, GRID, Heading, INK, Sample, TEXT_SIZE};
use super::{Series, check_shown, of};

const WIDTH: u32 = 900;
/// Of the plot itself, with the texts of its x axis.
const HEIGHT: u32 = 440;
const X_TEXTS_HEIGHT: u32 = 58;
/// Of the name of the y axis, which stands upright, with the distance between it and the ticks.
const Y_NAME_WIDTH: u32 = 44;
const MARGIN_RIGHT: u32 = 40;
/// Pieces of a curve of percentiles; a pixel or two each.
const PIECES: u32 = 400;

/// Draws curves with a mark at each point. `x` and `y` name the axes with their units; the y axis begins at 0.
///
/// # Errors
/// If there is no series, one without a point, or a point that the axes cannot show: what is no number, below 0,
/// or, on a logarithmic axis, at 0. And if the file cannot be written.
pub fn lines(file: &Path, title: &str, x: &str, y: &str, is_x_log: bool, series: &[Series]) -> anyhow::Result<()> {
    of(file, draw_lines(file, title, (x, y), is_x_log, series))
}

/// Draws the latency, recorded in microseconds, at each percentile in milliseconds, both axes logarithmic.
///
/// A curve ends with what its values can say: a thousand of them know nothing of 99.99 %.
///
/// # Errors
/// If there is no series, or one without a value; and if the file cannot be written.
pub fn latencies(file: &Path, title: &str, series: &[(String, Histogram<u64>)]) -> anyhow::Result<()> {
    of(file, draw_latencies(file, title, series))
}

/// What is drawn of a series: a line through all of `path`, and a mark at each of `marks`.
struct Curve<'a> {
    name: &'a str,
    path: Vec<(f64, f64)>,
    marks: Vec<(f64, f64)>,
}

fn draw_lines(file: &Path, title: &str, (x, y): (&str, &str), is_x_log: bool, series: &[Series]) -> anyhow::Result<()> {
    ensure!(!series.is_empty(), "there is no series");
    for Series { name, points } in series {
        ensure!(!points.is_empty(), "series {name} is empty");
        check_shown(name, points.iter().flat_map(|(x, y)| [*x, *y]))?;
        let is_on_axis = |x: f64| !is_x_log || x > 0.0;
        ensure!(points.iter().all(|(x, _)| is_on_axis(*x)), "{name} has an x of 0");
    }
    let all = || series.iter().flat_map(|series| &series.points);
    let x_low = all().map(|(x, _)| *x).fold(f64::INFINITY, f64::min);
    let x_high = all().map(|(x, _)| *x).fold(0.0, f64::max);
    let y_high = all().map(|(_, y)| *y).fold(0.0, f64::max);
    let x_axis = if is_x_log {
        Axis::logarithmic(x, x_low, x_high)
    } else {
        Axis::linear(x, x_low, x_high)
    };
    let curves = series.iter().map(|series| Curve {
        name: &series.name,
        path: series.points.clone(),
        marks: series.points.clone(),
    });
    let curves: Vec<Curve> = curves.collect();
    draw(file, title, &x_axis, &Axis::linear(y, 0.0, y_high), &curves)
}

fn draw_latencies(file: &Path, title: &str, series: &[(String, Histogram<u64>)]) -> anyhow::Result<()> {
    ensure!(!series.is_empty(), "there is no series");
    for (name, histogram) in series {
        ensure!(!histogram.is_empty(), "series {name} is empty");
    }
    let x_axis = Axis::percentiles();
    let curves = series
        .iter()
        .map(|(name, histogram)| percentiles(name, histogram, &x_axis));
    let curves: Vec<Curve> = curves.collect();
    let shown = || curves.iter().flat_map(|curve| &curve.path).map(|(_, ms)| *ms);
    let low = shown().fold(f64::INFINITY, f64::min);
    let high = shown().fold(0.0, f64::max);
    let y_axis = Axis::logarithmic("latency, ms", low, high);
    draw(file, title, &x_axis, &y_axis, &curves)
}

/// With x as 1 / (1 - p), so that n values reach to x = n, where the greatest of them stands alone.
fn percentiles<'a>(name: &'a str, histogram: &Histogram<u64>, axis: &Axis) -> Curve<'a> {
    let last = axis.ticks.last().map_or(1.0, |tick| tick.value);
    let reached = last.min(histogram.len() as f64);
    let point = |x: f64| {
        let micros = histogram.value_at_quantile(1.0 - 1.0 / x);
        (x, micros.max(1) as f64 / 1_000.0) // a logarithmic axis has no 0
    };
    let pieces = (0..=PIECES).map(|number| reached.powf(f64::from(number) / f64::from(PIECES)));
    let ticks = axis.ticks.iter().map(|tick| tick.value);
    Curve {
        name,
        path: pieces.map(point).collect(),
        marks: ticks.filter(|x| *x <= reached).map(point).collect(),
    }
}

fn draw(file: &Path, title: &str, x: &Axis, y: &Axis, curves: &[Curve]) -> anyhow::Result<()> {
    let names: Vec<&str> = curves.iter().map(|curve| curve.name).collect();
    let heading = Heading::new(title, &names, Sample::Curve, WIDTH);
    page::save(file, &heading, heading.height + HEIGHT, |canvas| {
        plot(canvas, heading.height, x, y, curves)
    })
}

fn plot(canvas: &Canvas, top: u32, x: &Axis, y: &Axis, curves: &[Curve]) -> anyhow::Result<()> {
    let y_texts_width = Y_NAME_WIDTH + page::width_of(&"0".repeat(y.text_chars()));
    let mut chart = ChartBuilder::on(canvas)
        .margin_top(top)
        .margin_right(MARGIN_RIGHT)
        .margin_bottom(10)
        .margin_left(10)
        .x_label_area_size(X_TEXTS_HEIGHT)
        .y_label_area_size(y_texts_width)
        .build_cartesian_2d(x.clone(), y.clone())?;
    let text = ("sans-serif", TEXT_SIZE).into_font().color(&INK);
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .label_style(text.clone())
        .axis_desc_style(text)
        .x_desc(&x.name)
        .y_desc(&y.name)
        .draw()?;
    for (number, curve) in curves.iter().enumerate() {
        let style = page::colour(number).stroke_width(2);
        chart.draw_series(LineSeries::new(curve.path.iter().copied(), style))?;
        for point in &curve.marks {
            page::mark(canvas, number, chart.backend_coord(point))?;
        }
    }
    Ok(())
}
