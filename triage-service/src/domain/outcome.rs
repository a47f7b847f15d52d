//! The outcome of a decision, as it is stored and published.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use shared::envelope::{DECISION_MADE, DecisionMade, Envelope, Motivation, MotivationType, Producer, Trace};
use shared::headers::Headers;
use shared::id::EventId;

use super::case::{Case, Reading};
use super::dead_letter::trace_context;
use super::decision::Decision;
use super::record::{Coordinates, Record};

/// Name of this service in the events it writes.
pub const SERVICE: &str = "triage-service";

/// A row for the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEvent {
    /// Its id; consumers deduplicate by it.
    pub event_id: EventId,
    /// Where it goes.
    pub topic: String,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its type.
    pub event_type: String,
    /// What its payload is.
    pub content_type: String,
    /// Its value.
    pub payload: Option<Vec<u8>>,
    /// Its own headers.
    pub headers: Headers,
    /// W3C trace context of the record that caused it.
    pub traceparent: Option<String>,
    /// Vendor part of the trace context.
    pub tracestate: Option<String>,
    /// The record that caused it.
    pub source: Coordinates,
}

/// A row for `decisions`: what is needed to decide again, and to prove that the same came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionRow {
    /// One id: here, in the payload and in `meta`.
    pub decision_id: EventId,
    /// The claimed id.
    pub event_id: EventId,
    /// What was decided, on which policies.
    pub decision: Decision,
    /// Which input.
    pub input_id: String,
    /// SHA-256 of the record's value.
    pub input_digest: [u8; 32],
    /// The record's value, where it is kept.
    pub input: Option<Vec<u8>>,
    /// SHA-256 of the outcome's payload. The envelope stays out: it says when, which differs each time.
    pub output_digest: [u8; 32],
    /// JSON: what was noted on the way.
    pub attributes: Vec<u8>,
}

/// What an outcome says beside the decision.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Topic of the outcomes.
    pub topic: &'a str,
    /// The consumer whose claim it is: part of the outcome's ids.
    pub consumer: &'a str,
    /// Which instance decided.
    pub instance: Option<&'a str>,
    /// When it was decided.
    pub now: DateTime<Utc>,
    /// Whether the record's value is kept with the decision, or only its digest.
    pub keep_input: bool,
}

/// The decision's row and its outcome event. Ids follow from the event: decided again, they are the same.
pub fn outcome(
    record: &Record,
    reading: &Reading,
    case: &Case,
    decision: Decision,
    context: Context<'_>,
) -> (DecisionRow, OutboxEvent) {
    let event_id = reading.event_id;
    let decision_id = event_id.derive(context.consumer, "decision");
    let decision_id_text = decision_id.as_uuid().to_string();
    let payload = payload(&decision_id_text, case, &decision);
    let output_digest = Sha256::digest(serde_json::to_vec(&payload).expect("payloads are plain data")).into();
    let outcome_id = event_id.derive(context.consumer, "outcome");
    let envelope = Envelope {
        event_id: outcome_id.as_uuid().to_string(),
        event_type: DECISION_MADE.to_owned(),
        event_version: 1,
        occurred_at: context.now,
        producer: Some(Producer {
            service: SERVICE.to_owned(),
            instance: context.instance.map(str::to_owned),
        }),
        trace: Some(Trace {
            causation_id: Some(case.event_id_text.clone()),
            ..case.trace.clone()
        }),
        payload,
        meta: meta(decision_id_text, case, &decision),
    };
    let (traceparent, tracestate) = trace_context(&record.headers);
    let attributes = json!({
        "policiesAsked": decision.policies_asked,
        "inputBytes": case.input_bytes,
        "channel": case.input.channel,
    });
    let row = DecisionRow {
        decision_id,
        event_id,
        input_id: case.input.input_id.clone(),
        input_digest: reading.value_digest,
        input: record.value.clone().filter(|_| context.keep_input),
        output_digest,
        attributes: attributes.to_string().into_bytes(),
        decision,
    };
    let event = OutboxEvent {
        event_id: outcome_id,
        topic: context.topic.to_owned(),
        key: Some(case.input.input_id.clone().into_bytes()),
        event_type: DECISION_MADE.to_owned(),
        content_type: "application/json".to_owned(),
        payload: Some(envelope.encode()),
        headers: Headers::new(),
        traceparent,
        tracestate,
        source: record.at.clone(),
    };
    (row, event)
}

fn payload(decision_id: &str, case: &Case, decision: &Decision) -> Map<String, Value> {
    let ruling = &decision.ruling;
    DecisionMade {
        decision_id: decision_id.to_owned(),
        input_id: case.input.input_id.clone(),
        priority: ruling.priority.to_string(),
        categories: ruling.categories.clone(),
        summary: format!("{} by {}: {}", ruling.outcome, ruling.rule, ruling.reason),
        suggested_actions: ruling.actions.clone(),
        motivation: Motivation {
            kind: MotivationType::Rules,
            reasons: vec![
                ruling.reason_code.name().to_owned(),
                ruling.rule.clone(),
                ruling.reason.clone(),
            ],
        },
    }
    .into_payload()
}

fn meta(decision_id: String, case: &Case, decision: &Decision) -> Map<String, Value> {
    let text = |value: &str| Value::String(value.to_owned());
    Map::from_iter([
        ("inputId".to_owned(), text(&case.input.input_id)),
        ("decisionId".to_owned(), Value::String(decision_id)),
        ("decisionOutcome".to_owned(), text(decision.ruling.outcome.name())),
        ("sourceEventId".to_owned(), text(&case.event_id_text)),
        ("policyVersion".to_owned(), text(&decision.policy_version)),
    ])
}

#[cfg(test)]
mod tests;
