//! Interleavings of the state machine alone.

use super::super::batch::{BatchId, Claiming, Piece};
use super::super::safeguards::Safeguards;
use super::super::{Assignment, Fact, Intake, Limits, RevokeId, Step, Verdict};
use super::{LIMITS, events};

fn intake(limits: Limits) -> Intake {
    Intake::new(limits, Safeguards::default())
}

fn assign(intake: &mut Intake, partition: i32, assignment: u64) {
    intake.note(Fact::Assigned {
        partition,
        assignment: Assignment(assignment),
    });
}

/// A batch, its piece, and (partition, offset) of the records.
type Begun = (BatchId, Piece, Vec<(i32, i64)>);

/// The attempts among the steps.
fn attempts(steps: &[Step]) -> Vec<Begun> {
    let attempt = |step: &Step| {
        let Step::Attempt { id, batch, piece } = step else {
            return None;
        };
        let at = |&index: &u32| {
            (
                batch.records()[index as usize].at.partition,
                batch.records()[index as usize].at.offset,
            )
        };
        Some((*id, piece.clone(), piece.records.iter().map(at).collect()))
    };
    steps.iter().filter_map(attempt).collect()
}

fn only_attempt(steps: &[Step]) -> Begun {
    let mut found = attempts(steps);
    assert_eq!(found.len(), 1, "{steps:?}");
    found.remove(0)
}

fn stores(steps: &[Step]) -> Vec<(i32, u64, i64)> {
    let store = |step: &Step| match step {
        Step::Store {
            partition,
            assignment,
            offset,
        } => Some((*partition, assignment.0, *offset)),
        _ => None,
    };
    steps.iter().filter_map(store).collect()
}

fn is_answered(steps: &[Step], revoke: u64) -> bool {
    steps
        .iter()
        .any(|step| matches!(step, Step::Answer(RevokeId(id)) if *id == revoke))
}

fn ended(batch: BatchId, verdict: Verdict) -> Fact {
    Fact::Attempted { batch, verdict }
}

#[test]
fn idle_partitions_are_combined_and_a_partition_has_one_batch_in_flight() {
    let mut intake = intake(LIMITS);
    assign(&mut intake, 0, 1);
    assign(&mut intake, 1, 2);
    let mut both = events(0, 0..2);
    both.extend(events(1, 5..7));
    let (id, _, first) = only_attempt(&intake.note(Fact::Received(both)));
    assert_eq!(first, [(0, 0), (0, 1), (1, 5), (1, 6)]);

    assert!(
        attempts(&intake.note(Fact::Received(events(0, 2..4)))).is_empty(),
        "a worker is free, but not the partition"
    );
    let steps = intake.note(ended(id, Verdict::Committed));
    assert_eq!(stores(&steps), [(0, 1, 2), (1, 2, 7)]);
    assert_eq!(only_attempt(&steps).2, [(0, 2), (0, 3)]);
}

#[test]
fn a_full_batch_leaves_the_other_partitions_to_the_next_worker() {
    let mut intake = intake(Limits {
        batch_records: 3,
        ..LIMITS
    });
    assign(&mut intake, 0, 1);
    assign(&mut intake, 1, 2);
    let mut both = events(0, 0..5);
    both.extend(events(1, 0..2));
    let steps = intake.note(Fact::Received(both));
    let offsets: Vec<_> = attempts(&steps).into_iter().map(|(_, _, offsets)| offsets).collect();
    assert_eq!(offsets, [vec![(0, 0), (0, 1), (0, 2)], vec![(1, 0), (1, 1)]]);
}

#[test]
fn a_data_error_is_bisected_in_the_order_of_offsets_until_one_record_is_set_aside() {
    let mut intake = intake(LIMITS);
    assign(&mut intake, 0, 1);
    let (id, _, _) = only_attempt(&intake.note(Fact::Received(events(0, 0..4))));
    let data_error = || Verdict::DataError("22021".to_owned());

    let (_, _, first_half) = only_attempt(&intake.note(ended(id, data_error())));
    assert_eq!(first_half, [(0, 0), (0, 1)], "the second half waits for the first");
    let steps = intake.note(ended(id, Verdict::Committed));
    assert_eq!(stores(&steps), [(0, 1, 2)]);
    assert_eq!(only_attempt(&steps).2, [(0, 2), (0, 3)]);
    assert_eq!(only_attempt(&intake.note(ended(id, data_error()))).2, [(0, 2)]);

    let (_, piece, alone) = only_attempt(&intake.note(ended(id, data_error())));
    assert_eq!((alone, piece.data_error.as_deref()), (vec![(0, 2)], Some("22021")));
    let steps = intake.note(ended(id, Verdict::Committed));
    assert_eq!(stores(&steps), [(0, 1, 3)]);
    assert_eq!(only_attempt(&steps).2, [(0, 3)]);
}

#[test]
fn a_record_that_takes_over_a_claim_has_its_own_transaction_in_its_place() {
    let mut intake = intake(LIMITS);
    assign(&mut intake, 0, 1);
    let (id, _, _) = only_attempt(&intake.note(Fact::Received(events(0, 0..3))));
    let (_, piece, before) = only_attempt(&intake.note(ended(id, Verdict::TakeOver(vec![1]))));
    assert_eq!((before, piece.claiming), (vec![(0, 0)], Claiming::Insert));
    let (_, piece, way_back) = only_attempt(&intake.note(ended(id, Verdict::Committed)));
    assert_eq!((way_back, piece.claiming), (vec![(0, 1)], Claiming::TakeOver));
    let (_, piece, after) = only_attempt(&intake.note(ended(id, Verdict::Committed)));
    assert_eq!((after, piece.claiming), (vec![(0, 2)], Claiming::Insert));
}

#[test]
fn a_revoke_waits_for_the_transaction_and_stops_between_halves() {
    let mut intake = intake(LIMITS);
    assign(&mut intake, 0, 1);
    let (id, _, _) = only_attempt(&intake.note(Fact::Received(events(0, 0..4))));
    intake.note(ended(id, Verdict::DataError("22021".to_owned())));

    let steps = intake.note(Fact::Revoking {
        revoke: RevokeId(7),
        partitions: vec![0],
    });
    assert!(!is_answered(&steps, 7));
    let steps = intake.note(ended(id, Verdict::Committed));
    assert!(
        matches!(steps[..], [Step::Store { offset: 2, .. }, Step::Answer(RevokeId(7))]),
        "{steps:?}"
    );
    assert_eq!(intake.in_flight(), 0);
}

#[test]
fn a_revoke_of_one_partition_does_not_stop_the_others_of_its_batch() {
    let mut intake = intake(LIMITS);
    assign(&mut intake, 0, 1);
    assign(&mut intake, 1, 2);
    let mut both = events(0, 0..2);
    both.extend(events(1, 0..2));
    let (id, _, _) = only_attempt(&intake.note(Fact::Received(both)));
    assert_eq!(
        only_attempt(&intake.note(ended(id, Verdict::DataError("22".into())))).2,
        [(0, 0), (0, 1)]
    );
    let steps = intake.note(Fact::Revoking {
        revoke: RevokeId(1),
        partitions: vec![1],
    });
    assert!(is_answered(&steps, 1), "no transaction holds a record of partition 1");
    let steps = intake.note(ended(id, Verdict::Committed));
    assert_eq!(
        (stores(&steps), attempts(&steps).len(), intake.in_flight()),
        (vec![(0, 1, 2)], 0, 0)
    );
}

#[test]
fn a_revoke_does_not_wait_for_a_batch_that_waits_for_the_store() {
    let mut intake = intake(LIMITS);
    assign(&mut intake, 0, 1);
    let (id, _, _) = only_attempt(&intake.note(Fact::Received(events(0, 0..4))));
    intake.note(ended(id, Verdict::Unavailable(String::new())));
    let steps = intake.note(Fact::Revoking {
        revoke: RevokeId(1),
        partitions: vec![0],
    });
    assert!(is_answered(&steps, 1));
    assert!(intake.note(Fact::RetryDue(id)).is_empty());
}

#[test]
fn the_result_of_an_assignment_that_is_over_is_dropped_also_if_the_partition_came_back() {
    let mut intake = intake(LIMITS);
    assign(&mut intake, 0, 1);
    let (old, _, _) = only_attempt(&intake.note(Fact::Received(events(0, 0..10))));
    intake.note(Fact::Lost(vec![0]));
    assign(&mut intake, 0, 2);
    let (new, _, offsets) = only_attempt(&intake.note(Fact::Received(events(0, 4..6))));
    assert_eq!(offsets, [(0, 4), (0, 5)]);
    assert_eq!(stores(&intake.note(ended(old, Verdict::Committed))), []);
    assert_eq!(stores(&intake.note(ended(new, Verdict::Committed))), [(0, 2, 6)]);
}

#[test]
fn a_batch_that_fails_pauses_its_partitions_and_comes_back_for_ever() {
    let mut intake = intake(LIMITS);
    assign(&mut intake, 0, 1);
    assign(&mut intake, 1, 2);
    let (id, _, _) = only_attempt(&intake.note(Fact::Received(events(0, 0..2))));
    for attempts_so_far in 1..50 {
        let verdict = if attempts_so_far % 2 == 0 {
            Verdict::Unclear(String::new())
        } else {
            Verdict::Unavailable(String::new())
        };
        let steps = intake.note(ended(id, verdict));
        assert!(
            steps
                .iter()
                .any(|step| matches!(step, Step::Retry { attempts, .. } if *attempts == attempts_so_far))
        );
        assert!(
            steps
                .iter()
                .any(|step| matches!(step, Step::Pause(partitions) if partitions == &[0])),
            "{steps:?}"
        );
        let steps = intake.note(Fact::RetryDue(id));
        assert_eq!(only_attempt(&steps).2, [(0, 0), (0, 1)]);
        assert!(
            steps
                .iter()
                .any(|step| matches!(step, Step::Resume(partitions) if partitions == &[0])),
            "{steps:?}"
        );
    }
    assert_eq!(stores(&intake.note(ended(id, Verdict::Committed))), [(0, 1, 2)]);
}

#[test]
fn a_held_claim_sends_the_partitions_of_a_batch_apart() {
    let mut intake = intake(LIMITS);
    assign(&mut intake, 0, 1);
    assign(&mut intake, 1, 2);
    let mut both = events(0, 0..2);
    both.extend(events(1, 0..2));
    let (id, _, _) = only_attempt(&intake.note(Fact::Received(both)));
    let apart = attempts(&intake.note(ended(id, Verdict::LockTimeout)));
    assert_eq!(
        apart.iter().map(|a| a.2.clone()).collect::<Vec<_>>(),
        [vec![(0, 0), (0, 1)], vec![(1, 0), (1, 1)]]
    );
    let steps = intake.note(ended(apart[1].0, Verdict::Committed));
    assert_eq!(stores(&steps), [(1, 2, 2)], "the healthy partition goes on");
    let steps = intake.note(ended(apart[0].0, Verdict::LockTimeout));
    assert!(steps.iter().any(|step| matches!(step, Step::Retry { attempts: 1, .. })));
}

#[test]
fn full_buffers_pause_and_half_empty_ones_resume() {
    let mut intake = intake(Limits {
        buffer_records: 20,
        workers: 1,
        ..LIMITS
    });
    assign(&mut intake, 0, 1);
    let (id, _, _) = only_attempt(&intake.note(Fact::Received(events(0, 0..1))));
    let steps = intake.note(Fact::Received(events(0, 1..22)));
    assert!(
        matches!(&steps[..], [Step::Pause(partitions)] if partitions == &[0]),
        "{steps:?}"
    );
    let steps = intake.note(ended(id, Verdict::Committed)); // takes 10, 11 are left
    assert!(!steps.iter().any(|step| matches!(step, Step::Resume(_))), "{steps:?}");
    let (id, _, _) = only_attempt(&steps);
    let steps = intake.note(ended(id, Verdict::Committed)); // takes 10, 1 is left
    assert!(steps.iter().any(|step| matches!(step, Step::Resume(_))), "{steps:?}");
}

#[test]
fn one_partition_may_use_half_of_the_buffers_before_it_is_paused() {
    let mut intake = intake(Limits {
        buffer_records: 40,
        workers: 1,
        ..LIMITS
    });
    for partition in 0..4 {
        assign(&mut intake, partition, 1);
    }
    intake.note(Fact::Received(events(0, 0..1)));
    let steps = intake.note(Fact::Received(events(0, 1..21))); // twice its share
    assert!(steps.is_empty(), "{steps:?}");
    let steps = intake.note(Fact::Received(events(1, 0..1))); // more than half are in use
    assert!(
        matches!(&steps[..], [Step::Pause(partitions)] if partitions == &[0]),
        "{steps:?}"
    );
}

#[test]
fn what_has_not_come_may_wait_while_a_transaction_runs_and_enough_is_there_for_the_next() {
    let mut intake = intake(Limits {
        buffer_records: 40,
        workers: 1,
        ..LIMITS
    });
    assign(&mut intake, 0, 1);
    let (id, _, _) = only_attempt(&intake.note(Fact::Received(events(0, 0..1))));
    intake.note(Fact::Received(events(0, 1..11)));
    assert!(!intake.is_stocked(), "a quarter");
    intake.note(Fact::Received(events(0, 11..12)));
    assert!(intake.is_stocked());
    intake.note(ended(id, Verdict::Unavailable("away".to_owned())));
    assert!(!intake.is_stocked(), "nothing runs that could make room");
}

#[test]
fn shutdown_ends_what_runs_and_takes_nothing_new() {
    let mut intake = intake(LIMITS);
    assign(&mut intake, 0, 1);
    let (id, _, _) = only_attempt(&intake.note(Fact::Received(events(0, 0..4))));
    intake.note(Fact::Received(events(0, 4..8)));
    assert!(intake.note(Fact::Draining).is_empty());
    assert!(intake.note(Fact::Received(events(0, 8..9))).is_empty());
    let steps = intake.note(ended(id, Verdict::Committed));
    assert!(
        matches!(steps[..], [Step::Store { offset: 4, .. }, Step::Drained]),
        "{steps:?}"
    );
}

#[test]
fn shutdown_of_an_idle_intake_is_drained_at_once() {
    let mut intake = intake(LIMITS);
    assert!(matches!(intake.note(Fact::Draining)[..], [Step::Drained]));
}
