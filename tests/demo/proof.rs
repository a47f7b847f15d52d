//! The proof as people read it, and the figures of the floor with their goals.

use std::collections::BTreeMap;

use harness::input::Kind;
use harness::report::{Goal, Latency, Report};

use crate::screen::{Screen, grouped, span};

/// Prints what was read back.
pub(crate) fn show(screen: &Screen, report: &Report, written: &BTreeMap<Kind, u64>, resident: &[(&str, u64)]) {
    let verdict = report.verdict.clone().unwrap_or_default();
    let of = |kind| written.get(&kind).copied().unwrap_or(0);
    let row = |label: &str, value: u64, note: String| {
        screen.say(format!("{label:<28}{:>9}   {}", grouped(value), screen.dim(&note)).trim_end());
    };
    let outcomes: Vec<_> = verdict
        .decisions
        .iter()
        .map(|(outcome, count)| format!("{outcome} {}", grouped(*count)))
        .collect();
    row("records on the input topic", verdict.records_in, String::new());
    row("  decided", verdict.decisions.values().sum(), outcomes.join(", "));
    row(
        "  duplicates suppressed",
        verdict.duplicates_suppressed,
        format!(
            "{} byte for byte, {} with another body",
            grouped(of(Kind::Duplicate)),
            grouped(of(Kind::Resend))
        ),
    );
    row(
        "  dead-lettered",
        verdict.dead_lettered,
        format!(
            "malformed {}, foreign type {}, tombstone {}, poison {}",
            grouped(of(Kind::Malformed)),
            grouped(of(Kind::UnsupportedType)),
            grouped(of(Kind::Tombstone)),
            grouped(of(Kind::Poison))
        ),
    );
    row("published to Kafka", verdict.published, String::new());
    screen.say("");
    let zero = |label: &str, value: u64, note: &str| {
        let mark = if value == 0 {
            screen.green("✓")
        } else {
            screen.red("✗")
        };
        screen.say(format!("{label:<28}{:>9} {mark} {}", grouped(value), screen.dim(note)).trim_end());
    };
    zero("lost", verdict.lost, "every record claimed, every outcome on its topic");
    zero(
        "decided twice",
        verdict.decided_twice,
        "one decision per event, whoever was killed",
    );
    zero(
        "order broken",
        verdict.order_violations,
        "outcomes of a key follow the offsets of their inputs",
    );
    row(
        "published again",
        verdict.publish_duplicates,
        "after a kill or freeze; consumers drop them by event-id".to_owned(),
    );
    screen.say("");
    if let Some(latency) = report.latency_ms {
        screen.say(latency_line("input to outcome", latency) + &screen.dim("   (the tail is the faults)"));
    }
    let faults: Vec<_> = report
        .faults
        .iter()
        .map(|(kind, faults)| format!("{} {}", kind.replace('_', " "), span(faults.recovery_ms_max)))
        .collect();
    if !faults.is_empty() {
        screen.say(format!("{:<26}{}", "overcome after", faults.join("   ")));
    }
    let resident: Vec<_> = resident
        .iter()
        .map(|(name, bytes)| format!("{name} {:.0} MB", *bytes as f64 / 1e6))
        .collect();
    if !resident.is_empty() {
        screen.say(format!("{:<26}{}", "resident at most", resident.join("   ")));
    }
    for skipped in &report.skipped {
        screen.say(format!("{} {skipped}", screen.yellow("skipped:")));
    }
    for problem in &verdict.problems {
        screen.say(format!("{} {problem}", screen.red("problem:")));
    }
}

/// Prints figures with their goals.
pub(crate) fn show_goals(screen: &Screen, goals: &[Goal]) {
    for Goal { name, value, goal, met } in goals {
        let bound = if name.contains("share") { "at least" } else { "at most" };
        let verdict = if *met {
            screen.green("✓")
        } else {
            screen.red("✗ missed")
        };
        screen.say(format!("{name:<58}{value:>8}   {bound} {goal:<6} {verdict}"));
    }
}

/// A latency by its ranks.
pub(crate) fn latency_line(label: &str, latency: Latency) -> String {
    format!(
        "{label:<26}p50 {}   p99 {}   max {}",
        span(latency.p50),
        span(latency.p99),
        span(latency.max)
    )
}
