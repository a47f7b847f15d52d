//! The state machine, its transactions and its loop: interleavings, and the laws over many of them.

mod laws;
mod machine;
mod outage;
mod store;
mod transaction;

use std::sync::Arc;

use shared::headers::Headers;

use crate::config::{PolicySettings, Settings};
use crate::domain::case::Accepted;
use crate::domain::record::{Coordinates, Record};

use super::Limits;
use super::attempt::Triage;
use super::safeguards::Safeguards;

const LIMITS: Limits = Limits {
    workers: 2,
    batch_records: 10,
    batch_bytes: 1 << 20,
    buffer_records: 100,
    buffer_bytes: 1 << 20,
};

fn record(partition: i32, offset: i64, value: Option<String>) -> Record {
    Record {
        at: Coordinates {
            topic: Arc::from("in"),
            partition,
            offset,
        },
        timestamp_ms: Some(1_700_000_000_000),
        key: None,
        value: value.map(String::into_bytes),
        headers: Headers::new(),
    }
}

/// A record whose event has this id and this text.
fn event(partition: i32, offset: i64, id: &str, text: &str) -> Record {
    let value = serde_json::json!({
        "eventId": id,
        "eventType": "triagemate.ingest.input-received",
        "eventVersion": 1,
        "occurredAt": "2026-01-01T00:00:00Z",
        "payload": {"inputId": format!("input-{partition}"), "channel": "web", "text": text, "receivedAtEpochMs": 1},
    });
    record(partition, offset, Some(value.to_string()))
}

fn events(partition: i32, offsets: std::ops::Range<i64>) -> Vec<Record> {
    offsets
        .map(|offset| event(partition, offset, &format!("e-{partition}-{offset}"), "hello"))
        .collect()
}

/// Triage as it is by default; the text `boom` makes its policy panic.
fn triage(safeguards: Safeguards) -> Triage {
    let policy = PolicySettings {
        drill_panic_text: Some("boom".to_owned()),
        ..Settings::default().policy
    };
    Triage {
        policies: policy.policies(),
        accepted: Accepted::default(),
        consumer: "triage".to_owned(),
        group: "triage".to_owned(),
        output_topic: "out".to_owned(),
        dead_letter_topic: "in.dlt".to_owned(),
        instance: None,
        keep_input: true,
        is_traced: false,
        safeguards,
    }
}
