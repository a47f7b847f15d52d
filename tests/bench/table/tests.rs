use serde_json::json;

use super::*;

fn row(measure: &str, values: &[f64], unit: &str, goal: Option<Bound>) -> Row {
    Row {
        measure: measure.to_owned(),
        values: values.to_vec(),
        unit: unit.to_owned(),
        goal,
        note: String::new(),
    }
}

fn rows() -> Vec<Row> {
    let mut share = row(
        "share of the limit",
        &[0.869, 0.8412, 0.9],
        "",
        Some(Bound::AtLeast(0.25)),
    );
    share.note = "of the same rows".to_owned();
    vec![
        row("topic to topic", &[21_356.2, 20_114.0, 24_587.9], "events/s", None),
        share,
        row("alone", &[61.13, 70.0], "ms", Some(Bound::AtMost(50.0))),
        row("lost", &[0.0], "", Some(Bound::AtMost(0.0))),
        row("not reached", &[], "ms", Some(Bound::AtMost(1_000.0))),
    ]
}

#[test]
fn the_median_decides_on_the_goal() {
    let at_least = |values: &[f64]| row("", values, "", Some(Bound::AtLeast(2.0))).is_met();
    assert_eq!(at_least(&[1.0, 2.0, 9.0]), Some(true), "the bound itself keeps it");
    assert_eq!(at_least(&[1.0, 1.9, 9.0]), Some(false));
    let at_most = |values: &[f64]| row("", values, "", Some(Bound::AtMost(2.0))).is_met();
    assert_eq!(at_most(&[1.0, 2.0, 9.0]), Some(true));
    assert_eq!(at_most(&[1.0, 2.1, 9.0]), Some(false));
    assert_eq!(row("", &[1.0], "", None).is_met(), None);
}

#[test]
fn what_was_not_measured_keeps_no_goal() {
    for goal in [Bound::AtLeast(0.0), Bound::AtMost(1e9)] {
        assert_eq!(row("", &[], "", Some(goal)).is_met(), Some(false));
        assert_eq!(row("", &[1.0, f64::NAN, 1.0], "", Some(goal)).is_met(), Some(false));
    }
}

#[test]
fn median_and_spread_are_of_all_rounds() {
    let row = row("", &[3.0, 1.0, 8.0], "", None);
    assert_eq!(row.median(), Some(3.0));
    assert_eq!(row.spread(), Some((1.0, 8.0)));
}

#[test]
fn markdown_has_a_line_a_measure_and_the_notes_below() {
    let expected = "\
| measure | median | min to max | goal | met |
| --- | ---: | ---: | --- | --- |
| topic to topic | 21,356 events/s | 20,114 to 24,588 |  |  |
| share of the limit | 0.869 | 0.841 to 0.900 | at least 0.25 | yes |
| alone | 65.6 ms | 61.1 to 70.0 | at most 50 | NO |
| lost | 0 | one round | at most 0 | yes |
| not reached | none |  | at most 1,000 | NO |

- share of the limit: of the same rows
";
    assert_eq!(markdown(&rows()), expected);
}

#[test]
fn a_terminal_shows_the_same_in_columns() {
    let expected = "\
measure                       median         min to max   goal            met
topic to topic       21,356 events/s   20,114 to 24,588
share of the limit             0.869     0.841 to 0.900   at least 0.25   yes
alone                        65.6 ms       61.1 to 70.0   at most 50      NO
lost                               0          one round   at most 0       yes
not reached                     none                      at most 1,000   NO

share of the limit: of the same rows
";
    assert_eq!(terminal(&rows()), expected);
}

#[test]
fn a_cell_cannot_break_the_table() {
    let text = markdown(&[row("a|b\nc", &[1.0], "ms", None)]);
    assert!(text.contains("| a\\|b c | 1 ms | one round |  |  |\n"), "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn the_shown_median_agrees_with_the_verdict() {
    let missed = row("share", &[0.249_96], "", Some(Bound::AtLeast(0.25)));
    assert_eq!(missed.is_met(), Some(false));
    assert!(missed.cells()[1] == "0.24996", "{}", missed.cells()[1]);
    let kept = row("share", &[0.250_04], "", Some(Bound::AtLeast(0.25)));
    assert_eq!(kept.cells()[1], "0.250");
    let slow = row("alone", &[500.4], "ms", Some(Bound::AtMost(500.0)));
    assert_eq!(slow.cells()[1], "500.4 ms");
}

#[test]
fn goals_are_objects_in_json() {
    let shown = serde_json::to_value(&rows()[1]).expect("it serializes");
    assert_eq!(
        shown,
        json!({
            "measure": "share of the limit",
            "values": [0.869, 0.8412, 0.9],
            "unit": "",
            "goal": {"at_least": 0.25},
            "note": "of the same rows",
        })
    );
    let shown = serde_json::to_value(rows()[2].goal).expect("it serializes");
    assert_eq!(shown, json!({"at_most": 50.0}));
}
