//! The envelope around every event between services, and its codec.
//!
//! Compatible on the wire with TriageMate 0.13: `null` means absent everywhere, unknown members are
//! ignored, and `occurredAt` comes as ISO-8601 text or as decimal epoch seconds. We write ISO-8601 UTC
//! and leave absent members out.

mod payload;
mod timestamp;

use std::fmt;

use chrono::{DateTime, Utc};
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

pub use payload::{DecisionMade, InputReceived, MemberError, Motivation, MotivationType};

/// Type of the event that asks for a decision.
pub const INPUT_RECEIVED: &str = "triagemate.ingest.input-received";
/// Type of the event that carries a decision.
pub const DECISION_MADE: &str = "triagemate.triage.decision-made";
/// Type of the feedback about a decision.
pub const OUTCOME_RECORDED: &str = "outcome-recorded";

/// Longest `eventId` in bytes; longer ones are refused, since they fit no index.
pub const EVENT_ID_BYTES_MAX: usize = 255;

/// A fact with its id, type and version.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// As it was written; [`crate::id::EventId::from_text`] makes the key of it.
    pub event_id: String,
    /// What kind of fact, for example [`INPUT_RECEIVED`].
    pub event_type: String,
    /// Version of the payload's shape; a breaking change raises it.
    pub event_version: u32,
    /// When the fact happened, by its producer's clock.
    #[serde(serialize_with = "timestamp::serialize")]
    pub occurred_at: DateTime<Utc>,
    /// Who wrote it. Absent also where the sender left its name out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer: Option<Producer>,
    /// What it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// The fact itself; its shape follows from type and version.
    pub payload: Map<String, Value>,
    /// What readers may need to know about the fact; unknown members are kept.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub meta: Map<String, Value>,
}

/// Which service wrote an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Producer {
    /// Name of the service.
    pub service: String,
    /// Which of its instances, where it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

/// Ids that tie events together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// The request that began it all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The business case that the event belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The event that caused this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
}

/// Why a value is no envelope. The text never holds what the value says: it may be personal data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", member.map(|name| format!("{name}: ")).unwrap_or_default())]
pub struct EnvelopeError {
    /// The member at fault; none when the value as a whole is no JSON object.
    pub member: Option<&'static str>,
    /// What is wrong with it.
    pub reason: String,
}

impl Envelope {
    /// Reads an envelope from a record's value.
    pub fn decode(value: &[u8]) -> Result<Self, EnvelopeError> {
        let wire: Wire<'_> = serde_json::from_slice(value).map_err(|error| EnvelopeError {
            member: None,
            reason: format!("not a JSON object: {}", outline(&error)),
        })?;
        Ok(Self {
            event_id: event_id(wire.event_id)?,
            event_type: not_blank("eventType", wire.event_type)?,
            event_version: event_version(wire.event_version)?,
            occurred_at: occurred_at(wire.occurred_at)?,
            producer: producer(wire.producer)?,
            trace: optional("trace", wire.trace, "an object whose ids are strings")?,
            payload: optional("payload", wire.payload, "an object")?.ok_or_else(|| refuse("payload", "is missing"))?,
            meta: optional("meta", wire.meta, "an object")?.unwrap_or_default(),
        })
    }

    /// Compact JSON, members in the order of the contract, absent ones left out.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and maps with text keys always have a JSON form")
    }
}

/// The members as they were written. The last one of a name counts, as in the Java services.
#[derive(Default)]
struct Wire<'a> {
    event_id: Option<&'a RawValue>,
    event_type: Option<&'a RawValue>,
    event_version: Option<&'a RawValue>,
    occurred_at: Option<&'a RawValue>,
    producer: Option<&'a RawValue>,
    trace: Option<&'a RawValue>,
    payload: Option<&'a RawValue>,
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Member {
    EventId,
    EventType,
    EventVersion,
    OccurredAt,
    Producer,
    Trace,
    Payload,
    Meta,
    #[serde(other)]
    Unknown,
}

impl<'de: 'a, 'a> Deserialize<'de> for Wire<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WireVisitor)
    }
}

struct WireVisitor;

impl<'de> Visitor<'de> for WireVisitor {
    type Value = Wire<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Wire<'de>, A::Error> {
        let mut wire = Wire::default();
        while let Some(member) = map.next_key()? {
            let slot = match member {
                Member::EventId => &mut wire.event_id,
                Member::EventType => &mut wire.event_type,
                Member::EventVersion => &mut wire.event_version,
                Member::OccurredAt => &mut wire.occurred_at,
                Member::Producer => &mut wire.producer,
                Member::Trace => &mut wire.trace,
                Member::Payload => &mut wire.payload,
                Member::Meta => &mut wire.meta,
                Member::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *slot = map.next_value()?; // null becomes None: absent
        }
        Ok(wire)
    }
}

fn event_id(raw: Option<&RawValue>) -> Result<String, EnvelopeError> {
    let id = not_blank("eventId", raw)?;
    if id.len() > EVENT_ID_BYTES_MAX {
        return Err(refuse(
            "eventId",
            format!("is {} bytes, the limit is {EVENT_ID_BYTES_MAX}", id.len()),
        ));
    }
    Ok(id)
}

fn event_version(raw: Option<&RawValue>) -> Result<u32, EnvelopeError> {
    let version: Option<u32> = optional("eventVersion", raw, "an integer from 0 to 4294967295")?;
    Ok(version.filter(|version| *version > 0).unwrap_or(1))
}

fn occurred_at(raw: Option<&RawValue>) -> Result<DateTime<Utc>, EnvelopeError> {
    let raw = raw.ok_or_else(|| refuse("occurredAt", "is missing"))?;
    timestamp::parse(raw.get()).map_err(|reason| refuse("occurredAt", reason))
}

fn producer(raw: Option<&RawValue>) -> Result<Option<Producer>, EnvelopeError> {
    #[derive(Deserialize)]
    struct Named {
        service: Option<String>,
        instance: Option<String>,
    }
    let named: Option<Named> = optional("producer", raw, "an object whose names are strings")?;
    Ok(named.and_then(|Named { service, instance }| service.map(|service| Producer { service, instance })))
}

fn not_blank(member: &'static str, raw: Option<&RawValue>) -> Result<String, EnvelopeError> {
    let text: String = optional(member, raw, "a string")?.ok_or_else(|| refuse(member, "is missing"))?;
    if text.trim().is_empty() {
        return Err(refuse(member, "is blank"));
    }
    Ok(text)
}

fn optional<T: DeserializeOwned>(
    member: &'static str,
    raw: Option<&RawValue>,
    expected: &str,
) -> Result<Option<T>, EnvelopeError> {
    let Some(raw) = raw else { return Ok(None) };
    serde_json::from_str(raw.get()).map(Some).map_err(|error| {
        // The rest of serde's text quotes the value.
        let what = if error.is_data() {
            "is not"
        } else {
            "holds text that is not legal in JSON, instead of"
        };
        refuse(member, format!("{what} {expected}"))
    })
}

fn refuse(member: &'static str, reason: impl Into<String>) -> EnvelopeError {
    EnvelopeError {
        member: Some(member),
        reason: reason.into(),
    }
}

/// Where and of which kind, without the text that serde quotes from the value.
fn outline(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    let kind = match error.classify() {
        Category::Io => "unreadable",
        Category::Syntax => "malformed JSON",
        Category::Data => "another type",
        Category::Eof => "cut short",
    };
    format!("{kind} at line {} column {}", error.line(), error.column())
}

#[cfg(test)]
mod tests;
