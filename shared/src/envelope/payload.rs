//! The payloads inside the envelope, version 1.

use serde::Serialize;
use serde_json::{Map, Value};

/// What [`super::INPUT_RECEIVED`] says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InputReceived {
    /// Id of the input; the key of its decision.
    pub input_id: String,
    /// Where it came in: `email`, `web`, ...
    pub channel: String,
    /// Subject line, where the channel has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The text to be judged. May be empty, and may hold NUL.
    pub text: String,
    /// Who sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// When it was received, in milliseconds since 1970.
    pub received_at_epoch_ms: i64,
}

/// Why a payload is refused: which member, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("payload.{member} {reason}")]
pub struct MemberError {
    /// Name of the member.
    pub member: &'static str,
    /// What is wrong with it; never its value.
    pub reason: &'static str,
}

impl InputReceived {
    /// Reads the payload. An absent `receivedAtEpochMs` is the record's timestamp.
    pub fn from_payload(payload: &Map<String, Value>, record_timestamp_ms: Option<i64>) -> Result<Self, MemberError> {
        Ok(Self {
            input_id: not_blank(payload, "inputId")?,
            channel: not_blank(payload, "channel")?,
            subject: text(payload, "subject")?,
            text: required(payload, "text")?,
            from: text(payload, "from")?,
            received_at_epoch_ms: received_at(payload, record_timestamp_ms)?,
        })
    }
}

fn received_at(payload: &Map<String, Value>, record_timestamp_ms: Option<i64>) -> Result<i64, MemberError> {
    const MEMBER: &str = "receivedAtEpochMs";
    match payload.get(MEMBER) {
        None | Some(Value::Null) => record_timestamp_ms.ok_or(MemberError {
            member: MEMBER,
            reason: "is missing, and its record has no timestamp",
        }),
        Some(value) => value.as_i64().ok_or(MemberError {
            member: MEMBER,
            reason: "is not an integer of 64 bits",
        }),
    }
}

fn not_blank(payload: &Map<String, Value>, member: &'static str) -> Result<String, MemberError> {
    let text = required(payload, member)?;
    if text.trim().is_empty() {
        return Err(MemberError {
            member,
            reason: "is blank",
        });
    }
    Ok(text)
}

fn required(payload: &Map<String, Value>, member: &'static str) -> Result<String, MemberError> {
    text(payload, member)?.ok_or(MemberError {
        member,
        reason: "is missing",
    })
}

fn text(payload: &Map<String, Value>, member: &'static str) -> Result<Option<String>, MemberError> {
    match payload.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(MemberError {
            member,
            reason: "is not a string",
        }),
    }
}

/// What [`super::DECISION_MADE`] says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionMade {
    /// The same id as in the envelope's `meta` and in the decision's row.
    pub decision_id: String,
    /// Which input was decided.
    pub input_id: String,
    /// `P0` to `P3`.
    pub priority: String,
    /// Labels of the rule that matched.
    pub categories: Vec<String>,
    /// One line for people.
    pub summary: String,
    /// What the rule suggests to do.
    pub suggested_actions: Vec<String>,
    /// Who decided, and why.
    pub motivation: Motivation,
}

/// Who decided, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Motivation {
    /// What the decision stands on.
    #[serde(rename = "type")]
    pub kind: MotivationType,
    /// Reasons for people, the rule's name among them.
    pub reasons: Vec<String>,
}

/// What a decision stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MotivationType {
    /// Rules alone.
    Rules,
    /// A model's advice alone.
    Ai,
    /// Rules that took a model's advice into account.
    Hybrid,
}

impl DecisionMade {
    /// The form that stands in [`super::Envelope::payload`].
    pub fn into_payload(self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(payload)) => payload,
            _ => unreachable!("a struct of strings and lists is a JSON object"),
        }
    }
}
