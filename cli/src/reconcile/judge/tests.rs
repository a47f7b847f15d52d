use proptest::prelude::*;

use super::*;

const DAY: Millis = 86_400_000;
const NOW: Millis = 1_000 * DAY;

/// A system of one topic with one partition, from which nothing was removed.
fn knowledge() -> Knowledge {
    let edges = Edges {
        settled: 100,
        lost_until: None,
    };
    Knowledge {
        now: NOW,
        claims_kept: 30 * DAY,
        committed: [(0, 50)].into(),
        claims_kept_from: [(0, 5)].into(),
        outputs: vec![Output {
            partitions: [(0, edges)].into(),
            was_repartitioned: false,
        }],
        ..Knowledge::default()
    }
}

fn with_edges(change: impl FnOnce(&mut Edges)) -> Knowledge {
    let mut known = knowledge();
    change(known.outputs[0].partitions.get_mut(&0).expect("there is one"));
    known
}

fn beginning(beginning: Beginning) -> Knowledge {
    with_edges(|edges| edges.lost_until = beginning.lost_until())
}

const fn at(offset: i64) -> Place {
    Place {
        topic: 0,
        partition: 0,
        offset,
    }
}

#[test]
fn a_record_above_the_committed_offset_is_only_not_finished() {
    let known = knowledge();
    assert_eq!(known.of_unclaimed(0, 49, Some(NOW - DAY)), Code::OffsetPastUnclaimed);
    assert_eq!(known.of_unclaimed(0, 50, Some(NOW - DAY)), Code::InputUnclaimed);
    assert_eq!(
        known.of_unclaimed(1, 0, Some(NOW - DAY)),
        Code::InputUnclaimed,
        "never committed"
    );
}

#[test]
fn a_claim_may_be_gone_only_below_every_claim_that_is_kept() {
    let known = knowledge();
    let old = Some(NOW - 31 * DAY);
    assert_eq!(known.of_unclaimed(0, 4, old), Code::ClaimGone);
    assert_eq!(
        known.of_unclaimed(0, 6, old),
        Code::OffsetPastUnclaimed,
        "claimed after one that is kept"
    );
    assert_eq!(
        known.of_unclaimed(0, 4, Some(NOW - DAY)),
        Code::OffsetPastUnclaimed,
        "too young to be retired"
    );
    assert_eq!(
        known.of_unclaimed(0, 4, Some(NOW + DAY)),
        Code::ClaimGone,
        "a time from the future"
    );
    assert_eq!(known.of_unclaimed(0, 4, None), Code::ClaimGone);
}

#[test]
fn an_offset_beyond_the_end_is_wrong() {
    assert_eq!(Knowledge::of_committed(10, 10), None);
    assert_eq!(Knowledge::of_committed(11, 10), Some(Code::OffsetPastEnd));
}

#[test]
fn a_published_row_is_missed_where_nothing_was_removed() {
    let known = knowledge();
    assert_eq!(
        known.of_published_without_record(0, 0, NOW - 2 * DAY),
        Code::PublishedWithoutRecord
    );
    let known = beginning(Beginning::Cut(Some(NOW - DAY)));
    assert_eq!(known.of_published_without_record(0, 0, NOW - 2 * DAY), Code::RecordGone);
    let younger = NOW - DAY + SKEW + 1;
    assert_eq!(
        known.of_published_without_record(0, 0, younger),
        Code::PublishedWithoutRecord
    );
    let known = beginning(Beginning::Cut(None));
    assert_eq!(
        known.of_published_without_record(0, 0, younger),
        Code::RecordGone,
        "all of it was removed"
    );
    let known = beginning(Beginning::Compacted);
    assert_eq!(known.of_published_without_record(0, 0, younger), Code::RecordGone);
    let known = beginning(Beginning::Whole);
    assert_eq!(known.of_published_without_record(0, 0, 0), Code::PublishedWithoutRecord);
}

#[test]
fn a_topic_that_is_not_there_has_lost_its_records() {
    let mut known = knowledge();
    known.outputs[0].partitions.clear();
    assert_eq!(
        known.of_published_without_record(0, 0, NOW),
        Code::PublishedWithoutRecord
    );
}

#[test]
fn where_partitions_were_added_any_of_them_may_have_lost_a_record() {
    let mut known = beginning(Beginning::Cut(Some(NOW - DAY)));
    let whole = Edges::default();
    known.outputs[0].partitions.insert(1, whole);
    assert_eq!(
        known.of_published_without_record(0, 1, NOW - 2 * DAY),
        Code::PublishedWithoutRecord
    );
    known.outputs[0].was_repartitioned = true;
    assert_eq!(known.of_published_without_record(0, 1, NOW - 2 * DAY), Code::RecordGone);
}

#[test]
fn a_record_that_came_after_the_first_look_may_be_younger_than_the_snapshot() {
    let known = knowledge();
    assert_eq!(
        known.of_record_without_row(at(99), None, false),
        Some(Code::RecordWithoutRow)
    );
    assert_eq!(known.of_record_without_row(at(100), None, false), None);
}

#[test]
fn a_record_of_a_dropped_leaf_is_gone() {
    let mut known = knowledge();
    known.rows_from_id = 1_000;
    assert_eq!(
        known.of_record_without_row(at(9), Some(999), false),
        Some(Code::RowGone)
    );
    assert_eq!(
        known.of_record_without_row(at(9), Some(1_000), false),
        Some(Code::RecordWithoutRow)
    );
    assert_eq!(
        known.of_record_without_row(at(9), None, false),
        Some(Code::RecordWithoutRow),
        "a stranger's"
    );
}

#[test]
fn a_claim_misses_its_row_unless_the_leaf_was_dropped() {
    let mut known = knowledge();
    assert_eq!(known.of_claim_without_row(0, false), Code::ClaimWithoutOutcome);
    known.rows_from = Some(NOW - DAY);
    assert_eq!(known.of_claim_without_row(NOW - DAY - 1, false), Code::OutcomeGone);
    assert_eq!(
        known.of_claim_without_row(NOW - DAY, true),
        Code::ClaimWithoutDeadLetter
    );
}

#[test]
fn claims_are_retired_before_their_decisions() {
    let known = knowledge();
    assert_eq!(known.of_decision_without_claim(NOW - 31 * DAY), None);
    assert_eq!(
        known.of_decision_without_claim(NOW - DAY),
        Some(Code::DecisionWithoutClaim)
    );
    assert_eq!(Knowledge::of_claim_without_decision(true), Code::DecisionGone);
    assert_eq!(Knowledge::of_claim_without_decision(false), Code::ClaimWithoutDecision);
}

#[test]
fn decided_again_after_retention_is_no_defect() {
    let known = knowledge();
    assert_eq!(
        known.of_repeated(NOW - 40 * DAY, NOW, Code::DecidedTwice),
        Code::DecidedAgain
    );
    assert_eq!(
        known.of_repeated(NOW - 20 * DAY, NOW, Code::DecidedTwice),
        Code::DecidedTwice
    );
}

#[test]
fn a_foreign_record_is_wrong_unless_others_may_write() {
    let mut known = knowledge();
    let of = |known: &Knowledge, is_foreign| known.of_record_without_row(at(9), None, is_foreign);
    assert_eq!(of(&known, true), Some(Code::RecordWithoutRow));
    known.admits_foreign = true;
    assert_eq!(of(&known, true), Some(Code::ForeignRecord));
    assert_eq!(of(&known, false), Some(Code::RecordWithoutRow));
}

#[test]
fn an_inversion_counts_only_where_the_first_occurrence_must_still_be_there() {
    let known = knowledge();
    assert_eq!(known.of_inversion(at(7), NOW - 2 * DAY), Code::OrderInverted);
    let known = beginning(Beginning::Cut(Some(NOW - DAY)));
    assert_eq!(known.of_inversion(at(7), NOW - 2 * DAY), Code::OrderGone);
    assert_eq!(known.of_inversion(at(7), NOW), Code::OrderInverted);
}

#[test]
fn who_overtakes_a_pending_row_is_judged_below_the_first_look_only() {
    let known = knowledge();
    assert_eq!(known.of_overtaken(at(99), NOW), Some(Code::OrderInverted));
    assert_eq!(known.of_overtaken(at(100), NOW), None);
}

proptest! {
    /// Whatever a system does between the looks, what it has done in the promised order is never called wrong.
    ///
    /// Time passes in steps: rows are committed, sent, settled, and each look sees what had happened by then.
    #[test]
    fn a_system_that_keeps_its_rules_is_never_wrong(
        steps in proptest::collection::vec(0u8..4, 1..60),
        looks in proptest::collection::vec(0usize..60, 4),
    ) {
        let mut looks = looks;
        looks.sort_unstable();
        let (mut rows, mut sent, mut settled) = (0i64, 0i64, 0i64);
        let mut seen = Vec::new();
        for (step, what) in steps.iter().enumerate() {
            while seen.len() < 4 && looks[seen.len()] <= step {
                seen.push((rows, sent, settled));
            }
            match what {
                0 => rows += 1,
                1 if sent < rows => sent += 1,
                2 if settled < sent => settled += 1,
                _ => {}
            }
        }
        seen.resize(4, (rows, sent, settled));
        // Row n is record n. Looks: the ends, the offsets (which stand for claims), the snapshot, the ends again.
        let (first_end, snapshot_rows, snapshot_settled, last_end) = (seen[0].1, seen[2].0, seen[2].2, seen[3].1);
        let known = with_edges(|edges| edges.settled = first_end);
        for record in snapshot_rows..last_end {
            prop_assert_eq!(known.of_record_without_row(at(record), None, true), None, "record {}", record);
        }
        prop_assert!(snapshot_settled <= last_end, "every published row has its record");
    }
}
