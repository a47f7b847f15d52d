//! Figures of rounds: what stands for all of them, and how they are written.

/// The middle of the values. `None` without any, and where one is no number: such a round measured nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    Some(if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    })
}

/// The least and the most of the values; `None` as for [`median`].
pub(crate) fn spread(values: &[f64]) -> Option<(f64, f64)> {
    median(values)?;
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some((least, most))
}

/// How many decimals these values are written with, all alike: none for counts, else about three digits of
/// their median that tell something, as no benchmark repeats more of them.
pub(crate) fn decimals(values: &[f64]) -> usize {
    let Some(median) = median(values).map(f64::abs) else {
        return 0;
    };
    let is_count = median.fract() == 0.0 && values.iter().all(|value| value.fract() == 0.0);
    match median {
        _ if is_count => 0,
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        0.01.. => 3,
        0.0 => 3,
        small => (1.0 - small.log10().floor()).min(9.0) as usize,
    }
}

/// With so many decimals, thousands grouped: `21,356`.
pub(crate) fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) if digits.contains(|digit| matches!(digit, '1'..='9')) => ("-", digits),
        Some(zero) => ("", zero),
        None => ("", text.as_str()),
    };
    let (whole, rest) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{rest}")
}

/// With no more digits than it has: goals and ticks, which people have chosen. `0.25`, `20,000`.
pub(crate) fn shortest(value: f64) -> String {
    const DECIMALS_MAX: usize = 9; // beyond stands what binary fractions leave over, as in 0.1 + 0.2
    let text = fixed(value, DECIMALS_MAX);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_whatever_the_order() {
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[9.0, 1.0, 5.0, 4.0]), Some(4.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn spread_is_least_and_most() {
        assert_eq!(spread(&[9.0, 1.0, 5.0]), Some((1.0, 9.0)));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn a_round_that_is_no_number_has_no_median() {
        assert_eq!(median(&[1.0, f64::NAN, 2.0]), None);
        assert_eq!(spread(&[1.0, f64::INFINITY]), None);
    }

    #[test]
    fn decimals_follow_the_size() {
        assert_eq!(decimals(&[21_356.4]), 0);
        assert_eq!(decimals(&[61.1]), 1);
        assert_eq!(decimals(&[1.5]), 2);
        assert_eq!(decimals(&[0.869]), 3);
        assert_eq!(decimals(&[0.000_42]), 5);
        assert_eq!(decimals(&[3.0, 5.0, 4.0]), 0, "counts");
        assert_eq!(decimals(&[3.0, 4.0]), 2, "their median is 3.5");
        assert_eq!(decimals(&[0.0]), 0);
        assert_eq!(decimals(&[-0.5, 0.0, 0.5]), 3);
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(fixed(999.0, 0), "999");
        assert_eq!(fixed(999.6, 0), "1,000");
        assert_eq!(fixed(1_234_567.891, 2), "1,234,567.89");
        assert_eq!(fixed(-123_456.0, 0), "-123,456");
        assert_eq!(fixed(-0.001, 2), "0.00");
    }

    #[test]
    fn what_people_chose_has_no_digit_more() {
        assert_eq!(shortest(0.25), "0.25");
        assert_eq!(shortest(20_000.0), "20,000");
        assert_eq!(shortest(0.1 + 0.2), "0.3");
        assert_eq!(shortest(100.0), "100");
        assert_eq!(shortest(0.0), "0");
    }
}
