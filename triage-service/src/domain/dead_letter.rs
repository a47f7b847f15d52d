//! A record that is set aside: why, and how its dead letter looks.
//!
//! A dead letter is the record, byte for byte: key and value as they came, null where they were null.
//! Why it was set aside stands in headers behind the record's own.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use shared::headers::Headers;
use shared::telemetry::parse_traceparent;

use super::outcome::OutboxEvent;
use super::record::Record;

/// Event type of the outbox rows that carry dead letters.
pub const DEAD_LETTER: &str = "dead-letter";

/// Longest text of a header: the dead-letter topic takes records 64 KiB larger than their source.
const MESSAGE_BYTES_MAX: usize = 2048;

/// Why a record is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The value is no envelope.
    Undecodable,
    /// The record has no value.
    Tombstone,
    /// The envelope has no usable `eventId`.
    MissingId,
    /// An envelope of a type or version that is not decided here.
    UnsupportedType,
    /// The payload lacks a member, or one is of another type.
    ValidationFailed,
    /// A policy panicked over it.
    PolicyPanic,
    /// A policy could not judge it.
    PolicyError,
    /// Postgres refused its data.
    DataError,
}

impl Reason {
    /// All of them, so that each is a metric from the start.
    pub const ALL: [Self; 8] = [
        Self::Undecodable,
        Self::Tombstone,
        Self::MissingId,
        Self::UnsupportedType,
        Self::ValidationFailed,
        Self::PolicyPanic,
        Self::PolicyError,
        Self::DataError,
    ];

    /// The code in claims, headers and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Undecodable => "UNDECODABLE",
            Self::Tombstone => "TOMBSTONE",
            Self::MissingId => "MISSING_ID",
            Self::UnsupportedType => "UNSUPPORTED_TYPE",
            Self::ValidationFailed => "VALIDATION_FAILED",
            Self::PolicyPanic => "POLICY_PANIC",
            Self::PolicyError => "POLICY_ERROR",
            Self::DataError => "DATA_ERROR",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Why a record is set aside, with what a person needs to know. Never holds what the record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The code.
    pub reason: Reason,
    /// One sentence for people.
    pub message: String,
}

/// What a dead letter says beside the record.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Topic of the dead letters.
    pub topic: &'a str,
    /// The consumer's group.
    pub group: &'a str,
    /// The consumer whose claim it is: part of the dead letter's id.
    pub consumer: &'a str,
    /// When it was set aside.
    pub now: DateTime<Utc>,
}

/// The dead letter of a record.
///
/// Its id follows from the record, not from the event: two records of one event id that are both set
/// aside are two dead letters, and neither may hide the other from who deduplicates by id.
pub fn dead_letter(record: &Record, set_aside: &SetAside, context: Context<'_>) -> OutboxEvent {
    let mut headers = record.headers.clone();
    let failed_at = context.now.to_rfc3339_opts(SecondsFormat::Millis, true);
    let mut text = |name: &str, value: String| headers.push(name, Some(value));
    text("dlt-topic", record.at.topic.to_string());
    text("dlt-partition", record.at.partition.to_string());
    text("dlt-offset", record.at.offset.to_string());
    if let Some(timestamp_ms) = record.timestamp_ms {
        text("dlt-timestamp", timestamp_ms.to_string());
    }
    text("dlt-reason", set_aside.reason.code().to_owned());
    text("dlt-message", shorten(&set_aside.message, MESSAGE_BYTES_MAX));
    text("dlt-group", context.group.to_owned());
    text("dlt-attempts", "1".to_owned()); // trouble of the infrastructure counts none
    text("dlt-first-failure-at", failed_at.clone());
    text("dlt-last-failure-at", failed_at);
    let (traceparent, tracestate) = trace_context(&record.headers);
    OutboxEvent {
        event_id: record.id().derive(context.consumer, "dead-letter"),
        topic: context.topic.to_owned(),
        key: record.key.clone(),
        event_type: DEAD_LETTER.to_owned(),
        content_type: content_type(&record.headers),
        payload: record.value.clone(),
        headers,
        traceparent,
        tracestate,
        source: record.at.clone(),
    }
}

/// The W3C trace context that a record carries, if it is well formed.
pub fn trace_context(headers: &Headers) -> (Option<String>, Option<String>) {
    let text = |name: &str| {
        headers
            .last(name)
            .and_then(|value| std::str::from_utf8(value).ok())
            .map(str::trim)
    };
    let Some(traceparent) = text("traceparent").filter(|value| parse_traceparent(value).is_some()) else {
        return (None, None); // a tracestate means nothing without its traceparent
    };
    let tracestate = text("tracestate")
        .filter(|value| !value.is_empty() && value.len() <= 512 && value.bytes().all(|b| (0x20..0x7f).contains(&b)));
    (Some(traceparent.to_owned()), tracestate.map(str::to_owned))
}

fn content_type(headers: &Headers) -> String {
    headers
        .last("content-type")
        .and_then(|value| std::str::from_utf8(value).ok())
        .filter(|value| !value.is_empty() && value.len() <= 255 && !value.contains('\0'))
        .unwrap_or("application/json")
        .to_owned()
}

/// At most `bytes_max` bytes of a text, cut between characters.
pub fn shorten(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
