//! The page of a plot: its colours and texts, title, legend, and the file.

use std::fs;
use std::path::Path;

use anyhow::Context;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// What is drawn on; positions are pixels from the upper left corner.
pub(super) type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// By Okabe and Ito, chosen so that colour-blind people tell them apart; without yellow, which white swallows.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xB2), // blue
    RGBColor(0xD5, 0x5E, 0x00), // vermilion
    RGBColor(0x00, 0x9E, 0x73), // bluish green
    RGBColor(0xCC, 0x79, 0xA7), // reddish purple
    RGBColor(0x56, 0xB4, 0xE9), // sky blue
    RGBColor(0xE6, 0x9F, 0x00), // orange
];
pub(super) const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
pub(super) const GRID: RGBColor = RGBColor(0xDD, 0xDD, 0xDD);

/// Plotters divides sizes by 1.24: 17 is written as 13.7 pixels.
pub(super) const TEXT_SIZE: u32 = 17;
const TITLE_SIZE: u32 = 22;
/// Pixels of a character, rather too many than too few: an SVG is drawn with fonts that are not known here.
const CHAR_WIDTH: f64 = 8.2;
const TITLE_CHAR_WIDTH: f64 = 12.0;

const MARGIN: u32 = 20;
const TITLE_HEIGHT: u32 = 44;
const LEGEND_HEIGHT: u32 = 24;
/// Of a legend, from the end of a name to the next sample.
const LEGEND_GAP: u32 = 22;

/// The colour of the n-th; with more of them than colours, curves still differ by their marks.
pub(super) fn colour(number: usize) -> RGBColor {
    COLOURS[number % COLOURS.len()]
}

/// Black or white, whichever is read more easily on this colour.
pub(super) fn ink_on(RGBColor(red, green, blue): RGBColor) -> RGBColor {
    let light = 0.299 * f64::from(red) + 0.587 * f64::from(green) + 0.114 * f64::from(blue);
    if light > 100.0 { INK } else { WHITE }
}

/// How wide a text is, about.
pub(super) fn width_of(text: &str) -> u32 {
    (text.chars().count() as f64 * CHAR_WIDTH).ceil() as u32
}

/// Writes a text left of, around, or right of a position, in the middle of its height.
pub(super) fn write(canvas: &Canvas, text: &str, ink: RGBColor, side: HPos, at: (i32, i32)) -> anyhow::Result<()> {
    let style = TextStyle::from(("sans-serif", TEXT_SIZE).into_font()).color(&ink);
    Ok(canvas.draw_text(text, &style.pos(Pos::new(side, VPos::Center)), at)?)
}

/// The mark of the n-th curve; shapes differ as well as colours.
pub(super) fn mark(canvas: &Canvas, number: usize, (x, y): (i32, i32)) -> anyhow::Result<()> {
    let fill = colour(number).filled();
    match number % 5 {
        0 => canvas.draw(&Circle::new((x, y), 4, fill))?,
        1 => canvas.draw(&Rectangle::new([(x - 4, y - 4), (x + 4, y + 4)], fill))?,
        2 => canvas.draw(&Polygon::new(vec![(x, y - 6), (x + 5, y + 4), (x - 5, y + 4)], fill))?,
        3 => canvas.draw(&Polygon::new(
            vec![(x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y)],
            fill,
        ))?,
        _ => canvas.draw(&Polygon::new(vec![(x, y + 6), (x + 5, y - 4), (x - 5, y - 4)], fill))?,
    }
    Ok(())
}

/// What a legend has before a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sample {
    /// A piece of the curve with its mark.
    Curve,
    /// A piece of the bar.
    Block,
}

impl Sample {
    /// From its left end to the name.
    fn width(self) -> u32 {
        match self {
            Self::Curve => 34,
            Self::Block => 22,
        }
    }
}

/// Title and legend, above the plot itself.
#[derive(Debug)]
pub(super) struct Heading<'a> {
    title: &'a str,
    /// Names with the position of their sample's left end.
    legend: Vec<(&'a str, (i32, i32))>,
    sample: Sample,
    /// Of the page: as asked for, or as the texts need.
    pub(super) width: u32,
    pub(super) height: u32,
}

impl<'a> Heading<'a> {
    /// As many names in a line as fit.
    pub(super) fn new(title: &'a str, names: &[&'a str], sample: Sample, width_min: u32) -> Self {
        let entry_width = |name: &str| sample.width() + width_of(name);
        let title_width = (title.chars().count() as f64 * TITLE_CHAR_WIDTH).ceil() as u32;
        let widest = names.iter().map(|name| entry_width(name)).chain([title_width]).max();
        let width = width_min.max(widest.unwrap_or_default() + 2 * MARGIN);
        let (mut x, mut y) = (MARGIN, TITLE_HEIGHT + LEGEND_HEIGHT / 2);
        let mut legend = Vec::new();
        for name in names {
            if x > MARGIN && x + entry_width(name) > width - MARGIN {
                (x, y) = (MARGIN, y + LEGEND_HEIGHT);
            }
            legend.push((*name, (x as i32, y as i32)));
            x += entry_width(name) + LEGEND_GAP;
        }
        let height = if names.is_empty() {
            TITLE_HEIGHT
        } else {
            y + LEGEND_HEIGHT
        };
        Self {
            title,
            legend,
            sample,
            width,
            height,
        }
    }

    fn draw(&self, canvas: &Canvas) -> anyhow::Result<()> {
        let style = TextStyle::from(("sans-serif", TITLE_SIZE).into_font().style(FontStyle::Bold)).color(&INK);
        let at = (MARGIN as i32, (TITLE_HEIGHT / 2) as i32);
        canvas.draw_text(self.title, &style.pos(Pos::new(HPos::Left, VPos::Center)), at)?;
        for (number, (name, (x, y))) in self.legend.iter().enumerate() {
            match self.sample {
                Sample::Curve => {
                    let style = colour(number).stroke_width(2);
                    canvas.draw(&PathElement::new([(*x, *y), (x + 26, *y)], style))?;
                    mark(canvas, number, (x + 13, *y))?;
                }
                Sample::Block => {
                    let corners = [(*x, y - 7), (x + 14, y + 7)];
                    canvas.draw(&Rectangle::new(corners, colour(number).filled()))?;
                }
            }
            write(canvas, name, INK, HPos::Left, (x + self.sample.width() as i32, *y))?;
        }
        Ok(())
    }
}

/// Draws a page of this height in whole and then writes the file: what fails on the way leaves no half of one.
pub(super) fn save(
    file: &Path,
    heading: &Heading,
    height: u32,
    plot: impl FnOnce(&Canvas) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut svg = String::new();
    let canvas = SVGBackend::with_string(&mut svg, (heading.width, height)).into_drawing_area();
    canvas.fill(&WHITE)?;
    heading.draw(&canvas)?;
    plot(&canvas)?;
    canvas.present()?;
    drop(canvas);
    fs::write(file, svg).context("write the file")
}
