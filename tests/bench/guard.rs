//! What CI asks of a short run: ratios well below the goals, since a machine is noisy, and tight bounds on what a row
//! costs in log and statements, since that is not.

use crate::table::{Bound, Row};

/// Rows of a round.
pub const ROWS: u64 = 50_000;
/// Rounds of each part.
pub const ROUNDS: usize = 2;

/// What must hold of the median of a measure.
const BOUNDS: [(&str, Bound); 10] = [
    ("end to end, share of the CPU limit", Bound::AtLeast(0.35)),
    (
        "end to end, log against the least of the same rows",
        Bound::AtMost(1.06),
    ),
    ("end to end, statements", Bound::AtMost(0.05)),
    ("triage-service resident under full load", Bound::AtMost(75.0)),
    ("outbox-publisher resident while it drains", Bound::AtMost(75.0)),
    ("publisher drain, share of the limit", Bound::AtLeast(0.40)),
    ("publisher drain, write-ahead log", Bound::AtMost(280.0)),
    ("publisher drain, statements", Bound::AtMost(0.005)),
    ("publisher drain against: row lease, batch 500", Bound::AtLeast(1.2)),
    ("HOT share of settles", Bound::AtLeast(0.99)),
];

/// What does not hold, a line each. A measure that is missing does not hold.
pub fn broken(rows: &[Row]) -> Vec<String> {
    let check = |(measure, bound): &(&str, Bound)| {
        let median = rows.iter().find(|row| row.measure == *measure).and_then(Row::median);
        match median {
            Some(median) if bound.is_kept_by(median) => None,
            Some(median) => Some(format!("{measure}: {median:.3}, and must be {}", bound.text())),
            None => Some(format!("{measure}: not measured, and must be {}", bound.text())),
        }
    };
    BOUNDS.iter().filter_map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(change: impl Fn(&str, f64) -> f64) -> Vec<Row> {
        let row = |(measure, bound): &(&str, Bound)| {
            let (Bound::AtLeast(at) | Bound::AtMost(at)) = *bound;
            Row {
                measure: (*measure).to_owned(),
                values: vec![change(measure, at)],
                unit: String::new(),
                goal: None,
                note: String::new(),
            }
        };
        BOUNDS.iter().map(row).collect()
    }

    #[test]
    fn what_stands_on_its_bound_holds_and_what_is_beyond_is_named() {
        assert_eq!(broken(&rows(|_, at| at)), [""; 0]);
        let worse = rows(|measure, at| if measure.starts_with("HOT") { at - 0.01 } else { at });
        let said = broken(&worse);
        assert!(said.len() == 1 && said[0].contains("HOT share"), "{said:?}");
    }

    #[test]
    fn what_is_not_measured_does_not_hold() {
        assert_eq!(broken(&[]).len(), BOUNDS.len());
    }
}
