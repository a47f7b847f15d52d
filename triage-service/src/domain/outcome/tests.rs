use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::config::PolicySettings;
use crate::domain::case::Accepted;
use crate::domain::dead_letter::{self, Reason, SetAside, dead_letter};

fn record(headers: Headers) -> Record {
    let value = json!({
        "eventId": "0198c0de-0000-7000-8000-000000000001", "eventType": "triagemate.ingest.input-received",
        "occurredAt": 1_763_678_412.123_456_7, "trace": {"requestId": "r-1", "correlationId": "c-1", "causationId": "x"},
        "payload": {"inputId": "i-1", "channel": "web", "text": "not working \u{0} at all"},
    });
    Record {
        at: Coordinates {
            topic: Arc::from("in"),
            partition: 3,
            offset: 42,
        },
        timestamp_ms: Some(1_763_678_412_500),
        key: None,
        value: Some(value.to_string().into_bytes()),
        headers,
    }
}

fn decided(record: &Record, now: i64) -> (DecisionRow, OutboxEvent) {
    let reading = Reading::of(record, &Accepted::default());
    let case = reading.case.as_ref().expect("a valid input");
    let decision = PolicySettings::default()
        .policies()
        .decide(case)
        .expect("no policy fails");
    let now = DateTime::from_timestamp(now, 0).expect("a moment");
    outcome(
        record,
        &reading,
        case,
        decision,
        Context {
            topic: "out",
            consumer: "triage",
            instance: Some("a"),
            now,
            keep_input: true,
        },
    )
}

#[test]
fn the_outcome_is_what_others_depend_on() {
    let (row, event) = decided(&record(Headers::new()), 1_800_000_000);
    let envelope: Value =
        serde_json::from_slice(event.payload.as_deref().expect("an outcome has a value")).expect("JSON");
    insta::assert_json_snapshot!(envelope);
    assert_eq!(event.key.as_deref(), Some(&b"i-1"[..]));
    assert_eq!(envelope["meta"]["decisionId"], row.decision_id.as_uuid().to_string());
    assert_eq!(envelope["eventId"], event.event_id.as_uuid().to_string());
}

#[test]
fn decided_again_the_same_comes_out() {
    let (first, event) = decided(&record(Headers::new()), 1_800_000_000);
    let (again, event_again) = decided(&record(Headers::new()), 1_900_000_000);
    assert_eq!(first, again, "the row does not say when");
    assert_eq!(event.event_id, event_again.event_id);
}

#[test]
fn a_well_formed_trace_context_is_carried_and_a_broken_one_is_not() {
    let mut headers = Headers::new();
    headers.push(
        "traceparent",
        Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    );
    headers.push("tracestate", Some("a=1"));
    let (_, event) = decided(&record(headers), 0);
    assert_eq!(
        event.traceparent.as_deref(),
        Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    );
    assert_eq!(event.tracestate.as_deref(), Some("a=1"));

    let mut headers = Headers::new();
    headers.push("traceparent", Some("00-zz"));
    headers.push("tracestate", Some("a=1"));
    let (_, event) = decided(&record(headers), 0);
    assert_eq!((event.traceparent, event.tracestate), (None, None));
}

#[test]
fn a_dead_letter_keeps_the_headers_of_its_record_before_its_own() {
    let mut headers = Headers::new();
    headers.push("mine", Some("1"));
    headers.push("mine", None::<&str>);
    let record = record(headers);
    let set_aside = SetAside {
        reason: Reason::PolicyError,
        message: "é".repeat(5_000),
    };
    let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a moment");
    let letter = dead_letter(
        &record,
        &set_aside,
        dead_letter::Context {
            topic: "in.dlt",
            group: "g",
            consumer: "triage",
            now,
        },
    );
    assert_eq!((&letter.key, &letter.payload), (&record.key, &record.value));
    let text =
        |value: Option<&[u8]>| value.map(|value| String::from_utf8_lossy(value).chars().take(40).collect::<String>());
    let headers: Vec<_> = letter
        .headers
        .iter()
        .map(|(name, value)| (name.to_owned(), text(value)))
        .collect();
    insta::assert_json_snapshot!(headers);
    assert!(letter.headers.last("dlt-message").expect("there is one").len() <= 2048);
}
