//! One transaction at a time, on a store in memory, driven by the state machine.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use chrono::DateTime;

use crate::config::PolicySettings;
use crate::domain::decision::Outcome;
use crate::domain::record::Record;
use crate::domain::rule::{Condition, Effect, Field, Rule};

use super::super::attempt::{Tally, Triage, attempt};
use super::super::safeguards::Safeguards;
use super::super::{Assignment, Fact, Intake, Step};
use super::store::Store;
use super::{LIMITS, event, record, triage};

/// Nothing in memory waits.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("the store in memory answers at once"),
    }
}

/// Lets the intake handle the records to the end. Tallies of its commits, and the last offset stored.
pub(super) fn drive(store: &Store, triage: &Triage, safeguards: Safeguards, records: Vec<Record>) -> (Vec<Tally>, i64) {
    let mut intake = Intake::new(LIMITS, safeguards);
    let mut todo = intake.note(Fact::Assigned {
        partition: 0,
        assignment: Assignment(1),
    });
    todo.extend(intake.note(Fact::Received(records)));
    let (mut tallies, mut stored) = (Vec::new(), -1);
    while let Some(step) = (!todo.is_empty()).then(|| todo.remove(0)) {
        match step {
            Step::Attempt { id, batch, piece } => {
                let now = DateTime::from_timestamp(0, 0).unwrap();
                let (verdict, tally) = block_on(attempt(store, triage, &batch, &piece, now));
                tallies.push(tally);
                todo.extend(intake.note(Fact::Attempted { batch: id, verdict }));
            }
            Step::Retry { id, .. } => todo.extend(intake.note(Fact::RetryDue(id))),
            Step::Store { offset, .. } => {
                assert!(offset > stored);
                stored = offset;
            }
            Step::Pause(_) | Step::Resume(_) | Step::Answer(_) | Step::Drained => {}
        }
    }
    assert_eq!(intake.in_flight(), 0);
    (tallies, stored)
}

fn run(store: &Store, records: Vec<Record>) -> Tally {
    run_as(store, &triage(Safeguards::default()), records)
}

fn run_as(store: &Store, triage: &Triage, records: Vec<Record>) -> Tally {
    let (tallies, _) = drive(store, triage, Safeguards::default(), records);
    tallies.into_iter().fold(Tally::default(), |mut sum, tally| {
        sum.decisions.extend(tally.decisions);
        sum.dead_letters.extend(tally.dead_letters);
        sum.duplicates += tally.duplicates;
        sum.mismatches.extend(tally.mismatches);
        sum
    })
}

#[test]
fn a_duplicate_is_decided_once_inside_a_batch_and_across_batches() {
    let store = Store::default();
    let tally = run(&store, vec![event(0, 0, "a", "hi"), event(0, 1, "a", "hi")]);
    assert_eq!(
        (tally.decisions.len(), tally.duplicates, tally.mismatches.len()),
        (1, 1, 0)
    );
    let tally = run(&store, vec![event(0, 2, "a", "hi"), event(0, 0, "a", "hi")]);
    assert_eq!(
        (tally.decisions.len(), tally.duplicates, tally.mismatches.len()),
        (0, 2, 0)
    );
    assert_eq!(store.rows().decisions.len(), 1);
}

#[test]
fn a_duplicate_with_another_body_names_both_records() {
    let store = Store::default();
    let tally = run(&store, vec![event(0, 0, "a", "hi"), event(0, 1, "a", "ho")]);
    let [mismatch] = &tally.mismatches[..] else {
        panic!("{tally:?}")
    };
    assert_eq!((mismatch.decided.offset, mismatch.record.offset), (0, 1));
    assert_eq!(
        (tally.duplicates, tally.dead_letters.len(), store.rows().decisions.len()),
        (1, 0, 1)
    );
}

#[test]
fn a_panic_sets_aside_that_event_only() {
    let store = Store::default();
    let tally = run(
        &store,
        vec![event(0, 0, "a", "hi"), event(0, 1, "b", "boom"), event(0, 2, "c", "hi")],
    );
    assert_eq!(tally.decisions, [Outcome::Accept, Outcome::Accept]);
    assert_eq!(tally.dead_letters[0].set_aside.reason.code(), "POLICY_PANIC");
    let rows = store.rows();
    assert_eq!(rows.claims.values().filter(|claim| claim.is_set_aside).count(), 1);
    let topics: Vec<_> = rows
        .events
        .iter()
        .map(|event| (event.source.offset, event.topic.as_str()))
        .collect();
    assert_eq!(topics, [(0, "out"), (1, "in.dlt"), (2, "out")]);
}

#[test]
fn a_data_error_sets_aside_one_record_and_its_good_successor_of_the_same_id_is_decided() {
    let store = Store::refusing("poison");
    let records = vec![
        event(0, 0, "x", "poison"),
        event(0, 1, "x", "good"),
        event(0, 2, "y", "hi"),
    ];
    let tally = run(&store, records);
    assert_eq!(
        (tally.decisions.len(), tally.dead_letters.len(), tally.duplicates),
        (2, 1, 0)
    );
    assert!(
        store.rows().claims.values().all(|claim| !claim.is_set_aside),
        "the good one took the claim over"
    );
}

#[test]
fn a_dead_letter_put_back_on_the_input_is_decided_once() {
    let store = Store::default();
    run(&store, vec![event(0, 0, "a", "boom")]);
    let tally = run(
        &store,
        vec![event(0, 1, "a", "corrected"), event(0, 2, "a", "corrected")],
    );
    assert_eq!((tally.decisions.len(), tally.duplicates), (1, 1));
    let tally = run(&store, vec![event(0, 0, "a", "boom")]);
    assert_eq!(
        (tally.dead_letters.len(), tally.duplicates, tally.mismatches.len()),
        (0, 1, 1)
    );
}

#[test]
fn a_redelivered_record_that_was_set_aside_is_a_duplicate_of_itself() {
    let store = Store::default();
    run(&store, vec![event(0, 0, "a", "boom")]);
    let tally = run(&store, vec![event(0, 0, "a", "boom")]);
    assert_eq!((tally.dead_letters.len(), tally.duplicates), (0, 1));
    assert_eq!(store.rows().events.len(), 1);
}

#[test]
fn a_broken_record_does_not_swallow_the_good_one_of_its_id() {
    let store = Store::default();
    let broken = record(
        0,
        0,
        Some(r#"{"eventId":"a","eventType":"triagemate.ingest.input-received"}"#.to_owned()),
    );
    let tally = run(&store, vec![broken, event(0, 1, "a", "hi")]);
    assert_eq!((tally.decisions.len(), tally.dead_letters.len()), (1, 1));
    assert_eq!(tally.dead_letters[0].set_aside.reason.code(), "UNDECODABLE");
}

#[test]
fn dead_letters_are_the_bytes_of_their_records_tombstones_included() {
    let store = Store::default();
    let mut tombstone = record(0, 0, None);
    tombstone.key = Some(vec![0, 159, 146, 150]);
    let mut bytes = record(0, 1, None);
    bytes.value = Some(vec![0xff, 0x00, 0x01]);
    bytes.headers.push("mine", None::<Vec<u8>>);
    run(&store, vec![tombstone.clone(), bytes.clone()]);
    let rows = store.rows();
    for (event, record) in rows.events.iter().zip([&tombstone, &bytes]) {
        assert_eq!((&event.key, &event.payload), (&record.key, &record.value));
        assert_eq!(event.event_type, "dead-letter");
    }
    let names: Vec<_> = rows.events[1].headers.iter().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(
        names,
        [
            "mine",
            "dlt-topic",
            "dlt-partition",
            "dlt-offset",
            "dlt-timestamp",
            "dlt-reason",
            "dlt-message",
            "dlt-group",
            "dlt-attempts",
            "dlt-first-failure-at",
            "dlt-last-failure-at"
        ]
    );
    assert_eq!(rows.events[0].headers.last("dlt-reason"), Some(&b"TOMBSTONE"[..]));
}

#[test]
fn retry_and_defer_are_final_and_published_as_any_other_outcome() {
    // given: policies that put inputs off, and then ones that would take them on
    let (store, accepting) = (Store::default(), triage(Safeguards::default()));
    let rule = |id: &str, effect, text: &str| Rule {
        id: id.to_owned(),
        effect,
        all_of: vec![Condition {
            field: Field::Text,
            contains: vec![text.to_owned()],
            equals: Vec::new(),
        }],
        ..PolicySettings::default().default
    };
    let hesitant = PolicySettings {
        rules: vec![rule("A", Effect::Retry, "later"), rule("B", Effect::Defer, "busy")],
        ..PolicySettings::default()
    };
    let hesitant = Triage {
        policies: hesitant.policies(),
        ..triage(Safeguards::default())
    };
    let records = || vec![event(0, 0, "a", "later"), event(0, 1, "b", "busy")];

    // when
    let tally = run_as(&store, &hesitant, records());
    let again = run_as(&store, &accepting, records());

    // then
    assert_eq!(tally.decisions, [Outcome::Retry, Outcome::Defer]);
    assert_eq!(tally.dead_letters, []);
    assert_eq!((again.decisions.len(), again.duplicates), (0, 2));
    let rows = store.rows();
    let published: Vec<_> = rows
        .events
        .iter()
        .map(|event| {
            let envelope: serde_json::Value = serde_json::from_slice(event.payload.as_deref().unwrap()).unwrap();
            (
                event.topic.as_str(),
                envelope["meta"]["decisionOutcome"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    assert_eq!(published, [("out", "RETRY".to_owned()), ("out", "DEFER".to_owned())]);
}
