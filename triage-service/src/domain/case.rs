//! A validated input, or why there is none.
//!
//! The id under which a record is claimed is decided here, from the record alone: whatever happens to
//! it later (an error of a policy, of SQL, a retry) must not change the id. Else a record could be
//! claimed twice, or a broken one could swallow its good successor.

use shared::envelope::{Envelope, INPUT_RECEIVED, InputReceived, Trace};
use shared::id::EventId;

use super::dead_letter::{Reason, SetAside};
use super::record::{ClaimDigest, Record};

/// An input that can be decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// The source event's id as it was written; `causationId` of the outcome.
    pub event_id_text: String,
    /// What is to be decided.
    pub input: InputReceived,
    /// Bytes of the record's value, for the cost guard.
    pub input_bytes: usize,
    /// Ids to be carried on.
    pub trace: Trace,
}

/// What a record turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The id under which the record is claimed.
    pub event_id: EventId,
    /// The id as it was written, where `event_id` is derived from it.
    pub event_id_text: Option<String>,
    /// SHA-256 of the record's value.
    pub value_digest: [u8; 32],
    /// The case, or the reason to set the record aside.
    pub case: Result<Case, SetAside>,
}

/// Which `(type, version)` pairs are decided. Everything else is set aside as unsupported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted(Vec<(String, u32)>);

impl Accepted {
    /// The given pairs.
    pub fn new(pairs: impl IntoIterator<Item = (String, u32)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    fn contains(&self, event_type: &str, version: u32) -> bool {
        self.0.iter().any(|(t, v)| t == event_type && *v == version)
    }
}

impl Default for Accepted {
    fn default() -> Self {
        Self::new([(INPUT_RECEIVED.to_owned(), 1)])
    }
}

impl Reading {
    /// Reads a record.
    ///
    /// One that decodes is claimed under its event id, also when it is set aside; one that does not
    /// decode, a tombstone, and one without a usable id, under the id of the record itself, even if
    /// an id could be seen in it.
    pub fn of(record: &Record, accepted: &Accepted) -> Self {
        let Some(value) = &record.value else {
            return Self::unnamed(record, Reason::Tombstone, "the record has no value".to_owned());
        };
        let envelope = match Envelope::decode(value) {
            Ok(envelope) => envelope,
            Err(error) => {
                let reason = if error.member == Some("eventId") {
                    Reason::MissingId
                } else {
                    Reason::Undecodable
                };
                return Self::unnamed(record, reason, error.to_string());
            }
        };
        let (event_id, is_derived) = EventId::from_text(&envelope.event_id);
        let event_id_text = is_derived.then(|| envelope.event_id.clone());
        Self {
            event_id,
            event_id_text,
            value_digest: record.value_digest(),
            case: case(envelope, record, value.len(), accepted),
        }
    }

    fn unnamed(record: &Record, reason: Reason, message: String) -> Self {
        Self {
            event_id: record.id(),
            event_id_text: None,
            value_digest: record.value_digest(),
            case: Err(SetAside { reason, message }),
        }
    }

    /// What duplicates of the record are compared with.
    pub fn claim_digest(&self) -> ClaimDigest {
        self.value_digest[..16].try_into().expect("SHA-256 has 32 bytes")
    }
}

fn case(envelope: Envelope, record: &Record, input_bytes: usize, accepted: &Accepted) -> Result<Case, SetAside> {
    if !accepted.contains(&envelope.event_type, envelope.event_version) {
        return Err(SetAside {
            reason: Reason::UnsupportedType,
            message: format!(
                "type {} version {} is not decided here",
                envelope.event_type, envelope.event_version
            ),
        });
    }
    let input = InputReceived::from_payload(&envelope.payload, record.timestamp_ms).map_err(|error| SetAside {
        reason: Reason::ValidationFailed,
        message: error.to_string(),
    })?;
    Ok(Case {
        event_id_text: envelope.event_id,
        input,
        input_bytes,
        trace: envelope.trace.unwrap_or_default(),
    })
}
