//! A record of the input topic, owned, and what names it.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use shared::headers::Headers;
use shared::id::EventId;

/// Where a record lies. The topic is shared: it is the same for all of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coordinates {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
}

impl fmt::Display for Coordinates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]@{}", self.topic, self.partition, self.offset)
    }
}

/// One entry of the input topic, as it was received. A tombstone has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it lies.
    pub at: Coordinates,
    /// The record's timestamp in milliseconds since 1970, where it has one.
    pub timestamp_ms: Option<i64>,
    /// The key's bytes; null is not the same as empty.
    pub key: Option<Vec<u8>>,
    /// The value's bytes; null is not the same as empty.
    pub value: Option<Vec<u8>>,
    /// Headers in their order.
    pub headers: Headers,
}

/// The first 16 bytes of SHA-256 of a record's value. Tells a duplicate from another body.
pub type ClaimDigest = [u8; 16];

impl Record {
    /// Bytes that the record holds in memory, roughly.
    pub fn size_bytes(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len) + 48)
            .sum();
        160 + self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers
    }

    /// SHA-256 of the value; of nothing, for a tombstone.
    pub fn value_digest(&self) -> [u8; 32] {
        Sha256::digest(self.value.as_deref().unwrap_or_default()).into()
    }

    /// The id of the record itself, for what has no usable id of its own.
    pub fn id(&self) -> EventId {
        EventId::of_record(
            &self.at.topic,
            self.at.partition,
            self.at.offset,
            self.timestamp_ms,
            self.key.as_deref(),
            self.value.as_deref(),
        )
    }
}
