//! `occurredAt`: two forms are on the wire, one is written.

use chrono::{DateTime, Datelike, SecondsFormat, Utc};
use serde::Serializer;

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// Reads the JSON text of the member: a string in ISO-8601, or a number of epoch seconds.
pub(super) fn parse(json: &str) -> Result<DateTime<Utc>, String> {
    let moment = if json.starts_with('"') {
        let text: String = serde_json::from_str(json).map_err(|_| "is not a legal string".to_owned())?;
        let parsed = DateTime::parse_from_rfc3339(&text);
        parsed
            .map_err(|error| format!("is no ISO-8601 instant: {error}"))?
            .to_utc()
    } else if json.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        let nanos = nanos_of(json).ok_or("is a number out of range")?;
        let seconds = i64::try_from(nanos.div_euclid(NANOS_PER_SECOND)).map_err(|_| "is a number out of range")?;
        let rest = u32::try_from(nanos.rem_euclid(NANOS_PER_SECOND)).expect("a remainder below 10^9 fits 32 bits");
        DateTime::from_timestamp(seconds, rest).ok_or("is a number out of range")?
    } else {
        return Err("is neither ISO-8601 text nor epoch seconds".to_owned());
    };
    // Other years have no plain ISO-8601 form that every reader takes.
    if !(1..=9999).contains(&moment.year()) {
        return Err("is outside the years 1 to 9999".to_owned());
    }
    Ok(moment)
}

/// ISO-8601 in UTC with 0, 3, 6 or 9 decimals, as Java's `Instant` prints it.
pub(super) fn serialize<S: Serializer>(moment: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&moment.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

/// Nanoseconds of a JSON number of seconds, from its digits: a float has too few of them.
/// What lies below a nanosecond is cut off. `None` when the number is out of any calendar's range.
fn nanos_of(number: &str) -> Option<i128> {
    const DIGITS_MAX: usize = 30; // years by the billion, and far inside i128
    let (mantissa, exponent) = match number.find(['e', 'E']) {
        Some(at) => (&number[..at], number[at + 1..].parse::<i32>().ok()?),
        None => (number, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));

    let digits: String = [whole, fraction].concat();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    // value = digits * 10^shift nanoseconds
    let shift = i64::from(exponent) - i64::try_from(fraction.len()).ok()? + 9;
    let length = i64::try_from(digits.len()).ok()? + shift;
    if length <= 0 {
        return Some(0);
    }
    let length = usize::try_from(length).ok().filter(|length| *length <= DIGITS_MAX)?;
    let mut nanos: i128 = 0;
    for position in 0..length {
        let digit = digits.as_bytes().get(position).map_or(0, |digit| digit - b'0');
        nanos = nanos * 10 + i128::from(digit);
    }
    Some(if negative { -nanos } else { nanos })
}
