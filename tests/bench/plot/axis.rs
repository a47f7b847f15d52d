//! Axes with ticks at round numbers.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use crate::figures;

/// Ticks that a linear axis has about.
const TICKS: f64 = 6.0;
/// More than these, and only powers of ten are ticks.
const LOG_TICKS_MAX: usize = 10;

/// What lies along one side of a plot, from its first tick to its last; there are two at least.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub(super) name: String,
    pub(super) ticks: Vec<Tick>,
    is_log: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Tick {
    pub(super) value: f64,
    pub(super) text: String,
}

impl Axis {
    /// From a tick at or below `low` to one at or above `high`.
    pub(super) fn linear(name: &str, low: f64, high: f64) -> Self {
        let span = if high > low { high - low } else { high.abs().max(1.0) };
        let step = round_step(span / TICKS);
        let first = (low / step + TOLERANCE).floor() as i64;
        let last = ((high / step - TOLERANCE).ceil() as i64).max(first + 1);
        let values = (first..=last).map(|number| number as f64 * step);
        Self::with_ticks(name, values.collect(), false)
    }

    /// Likewise, for numbers above 0.
    pub(super) fn logarithmic(name: &str, low: f64, high: f64) -> Self {
        let fine = log_ticks(low, high, &[1.0, 2.0, 5.0]);
        let values = if fine.len() > LOG_TICKS_MAX {
            log_ticks(low, high, &[1.0])
        } else {
            fine
        };
        Self::with_ticks(name, values, true)
    }

    /// Percentiles, at the logarithm of 1 / (1 - p): each further nine is as wide as the one before.
    pub(super) fn percentiles() -> Self {
        let tick = |(percent, value): (&str, f64)| Tick {
            value,
            text: format!("{percent} %"),
        };
        let ticks = [
            ("0", 1.0),
            ("50", 2.0),
            ("90", 10.0),
            ("99", 100.0),
            ("99.9", 1_000.0),
            ("99.99", 10_000.0),
        ];
        Self {
            name: "percentile".to_owned(),
            ticks: ticks.map(tick).into(),
            is_log: true,
        }
    }

    fn with_ticks(name: &str, values: Vec<f64>, is_log: bool) -> Self {
        let ticks = values.into_iter().map(|value| Tick {
            value,
            text: figures::shortest(value),
        });
        Self {
            name: name.to_owned(),
            ticks: ticks.collect(),
            is_log,
        }
    }

    /// Characters of the longest text.
    pub(super) fn text_chars(&self) -> usize {
        let chars = self.ticks.iter().map(|tick| tick.text.chars().count());
        chars.max().unwrap_or_default()
    }

    /// How far along the axis a value stands, of 1.
    fn share(&self, value: f64) -> f64 {
        let place = |value: f64| if self.is_log { value.log10() } else { value };
        let Range { start, end } = self.range();
        (place(value) - place(start)) / (place(end) - place(start))
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let length = f64::from(limit.1 - limit.0);
        limit.0 + (self.share(*value) * length).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            return Vec::new(); // lines between the ticks would be noise
        }
        self.ticks.iter().map(|tick| tick.value).collect()
    }

    fn range(&self) -> Range<f64> {
        self.ticks[0].value..self.ticks[self.ticks.len() - 1].value
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.ticks.iter().find(|tick| tick.value == *value);
        tick.map(|tick| tick.text.clone()).unwrap_or_default()
    }
}

/// A value so close to a tick lies on it: it is the tick, with the error of a division.
const TOLERANCE: f64 = 1e-9;

/// 1, 2 or 5 times a power of ten, at least as large.
fn round_step(step: f64) -> f64 {
    let power = power_of_ten(step.log10().floor() as i32);
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= step);
    factor.unwrap_or(10.0) * power
}

/// From the last at or below `low` to the first at or above `high`, and at least two.
fn log_ticks(low: f64, high: f64, factors: &[f64]) -> Vec<f64> {
    let powers = low.log10().floor() as i32..=high.log10().ceil() as i32 + 1;
    let all = powers.flat_map(|power| factors.iter().map(move |factor| factor * power_of_ten(power)));
    let all: Vec<f64> = all.collect();
    let first = all
        .iter()
        .rposition(|tick| *tick <= low * (1.0 + TOLERANCE))
        .unwrap_or(0);
    let last = all.iter().position(|tick| *tick >= high * (1.0 - TOLERANCE));
    all[first..=last.unwrap_or(all.len() - 1).max(first + 1)].to_vec()
}

/// By a division where the power is below 1: 0.01 and not its neighbour.
fn power_of_ten(power: i32) -> f64 {
    if power < 0 {
        1.0 / 10_f64.powi(-power)
    } else {
        10_f64.powi(power)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.text.as_str()).collect()
    }

    #[test]
    fn linear_ticks_are_round_and_cover_all() {
        let axis = Axis::linear("", 0.0, 21_356.0);
        assert_eq!(texts(&axis), ["0", "5,000", "10,000", "15,000", "20,000", "25,000"]);
        let axis = Axis::linear("", 0.0, 0.869);
        assert_eq!(texts(&axis), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        let axis = Axis::linear("", 1.0, 8.0);
        assert_eq!(texts(&axis), ["0", "2", "4", "6", "8"]);
    }

    #[test]
    fn an_axis_is_never_without_length() {
        assert_eq!(texts(&Axis::linear("", 0.0, 0.0)), ["0", "0.2"]);
        assert_eq!(texts(&Axis::logarithmic("", 10.0, 10.0)), ["10", "20"]);
    }

    #[test]
    fn logarithmic_ticks_cover_all() {
        assert_eq!(texts(&Axis::logarithmic("", 1.0, 16.0)), ["1", "2", "5", "10", "20"]);
        assert_eq!(
            texts(&Axis::logarithmic("", 0.03, 0.4)),
            ["0.02", "0.05", "0.1", "0.2", "0.5"]
        );
        let wide = Axis::logarithmic("", 0.2, 3_000.0);
        assert_eq!(texts(&wide), ["0.1", "1", "10", "100", "1,000", "10,000"]);
    }

    #[test]
    fn each_nine_is_as_wide_as_the_one_before() {
        let axis = Axis::percentiles();
        let places = axis.ticks.iter().map(|tick| axis.map(&tick.value, (100, 500)));
        let places: Vec<i32> = places.collect();
        assert_eq!(places, [100, 130, 200, 300, 400, 500]);
        assert_eq!(axis.format_ext(&1_000.0), "99.9 %");
    }
}
