//! An outbox event as the publisher reads it, and what is wrong with it before anybody sends it.

use std::sync::Arc;

use shared::hash;
use shared::headers::Headers;
use shared::kafka::is_topic_name;
use uuid::Uuid;

/// A row of the outbox that waits to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEvent {
    /// Its place in the order of its key.
    pub id: i64,
    /// The hash slot it was written under.
    pub bucket: i16,
    /// The hash of its topic and key it was written under.
    pub lane_hash: i32,
    /// The id by which consumers recognise it.
    pub event_id: Uuid,
    /// Failures so far that were its own.
    pub attempts: u32,
    /// Where it goes.
    pub topic: String,
    /// Whose order it keeps.
    pub key: Option<Vec<u8>>,
    /// What kind of fact it is.
    pub event_type: String,
    /// How the payload is to be read.
    pub content_type: String,
    /// The bytes to publish; none is a tombstone.
    pub payload: Option<Vec<u8>>,
    /// Its writer's headers, as stored.
    pub headers: Option<Vec<u8>>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// W3C trace state.
    pub tracestate: Option<String>,
}

/// What the rest of the publisher's headers and the record's framing may take at most.
const OVERHEAD_BYTES: usize = 512;

/// A fault of the row itself: sending it cannot help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// Its bucket is not its key's: another owner may hold that bucket.
    #[error(
        "bucket {found} does not match the key, which belongs to {expected}: enqueue through the library or outbox_enqueue()"
    )]
    WrongBucket {
        /// As written.
        found: i16,
        /// As the key says.
        expected: i16,
    },
    /// Its lane hash is not its topic's and key's.
    #[error(
        "lane_hash {found} does not match topic and key, which have {expected}: enqueue through the library or outbox_enqueue()"
    )]
    WrongLaneHash {
        /// As written.
        found: i32,
        /// As topic and key say.
        expected: i32,
    },
    /// The stored headers cannot be read.
    #[error("headers: {0}: write them in the form that outbox_headers() shows, or leave them null")]
    Headers(String),
    /// Kafka has no topic of such a name.
    #[error(
        "topic {0:?} is no name that Kafka accepts (1 to 249 of a-z A-Z 0-9 . _ -, and neither . nor ..): enqueue the \
         event again for another one"
    )]
    TopicName(String),
    /// The topic refuses records of this size.
    #[error(
        "record of {size_bytes} bytes is over the topic's limit of {limit_bytes} (max.message.bytes): raise that, or \
         enqueue a smaller one"
    )]
    TooLarge {
        /// Key, payload, headers and framing.
        size_bytes: usize,
        /// What the topic or the producer takes.
        limit_bytes: usize,
    },
}

impl Unsendable {
    /// The label under which such rows are counted.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::WrongBucket { .. } => "wrong_bucket",
            Self::WrongLaneHash { .. } => "wrong_lane_hash",
            Self::Headers(_) => "headers",
            Self::TopicName(_) => "topic_name",
            Self::TooLarge { .. } => "too_large",
        }
    }
}

impl OutboxEvent {
    /// What a record of it takes on the wire, uncompressed, at most.
    pub fn size_bytes(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        len(&self.key)
            + len(&self.payload)
            + len(&self.headers)
            + self.event_type.len()
            + self.content_type.len()
            + self.traceparent.as_ref().map_or(0, String::len)
            + self.tracestate.as_ref().map_or(0, String::len)
            + OVERHEAD_BYTES
    }

    /// Lets go of what only a record of it needs. How many bytes.
    pub fn let_go(&mut self) -> usize {
        let before = self.size_bytes();
        (self.payload, self.headers) = (None, None);
        before - self.size_bytes()
    }

    /// Finds a fault that needs no topic to be seen.
    ///
    /// # Errors
    /// The fault.
    pub fn check(&self) -> Result<(), Unsendable> {
        let expected = hash::bucket_of(self.key.as_deref(), self.event_id);
        if self.bucket != expected {
            return Err(Unsendable::WrongBucket {
                found: self.bucket,
                expected,
            });
        }
        let expected = hash::lane_hash(&self.topic, self.key.as_deref(), self.event_id);
        if self.lane_hash != expected {
            return Err(Unsendable::WrongLaneHash {
                found: self.lane_hash,
                expected,
            });
        }
        if !is_topic_name(&self.topic) {
            return Err(Unsendable::TopicName(self.topic.clone()));
        }
        if let Some(stored) = &self.headers {
            let headers = Headers::decode(stored).map_err(|e| Unsendable::Headers(e.to_string()))?;
            if headers.iter().any(|(name, _)| name.contains('\0')) {
                return Err(Unsendable::Headers("a name holds a NUL character".to_owned()));
            }
        }
        Ok(())
    }

    /// Finds out whether a topic of this limit takes it.
    ///
    /// # Errors
    /// [`Unsendable::TooLarge`].
    pub fn check_size(&self, limit_bytes: usize) -> Result<(), Unsendable> {
        let size_bytes = self.size_bytes();
        if size_bytes > limit_bytes {
            return Err(Unsendable::TooLarge {
                size_bytes,
                limit_bytes,
            });
        }
        Ok(())
    }
}

/// What keeps its order, and what a failed row blocks: a topic and a key.
///
/// A null key is nobody's: the event id stands for it, so that such a row blocks only itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneKey {
    topic: Arc<str>,
    key: Result<Arc<[u8]>, Uuid>,
}

impl LaneKey {
    /// The lane key of a row.
    pub fn of(event: &OutboxEvent) -> Self {
        Self::new(&event.topic, event.key.as_deref(), event.event_id)
    }

    /// From its parts.
    pub fn new(topic: &str, key: Option<&[u8]>, event_id: Uuid) -> Self {
        Self {
            topic: Arc::from(topic),
            key: key.map(Arc::from).ok_or(event_id),
        }
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Whether a row is of this topic and key.
    pub fn is_of(&self, event: &OutboxEvent) -> bool {
        *self.topic == *event.topic
            && match (&self.key, &event.key) {
                (Ok(mine), Some(key)) => **mine == **key,
                (Err(mine), None) => *mine == event.event_id,
                (Ok(_), None) | (Err(_), Some(_)) => false,
            }
    }

    /// The hash by which the side lane is indexed.
    pub fn hash(&self) -> i32 {
        match &self.key {
            Ok(key) => hash::lane_hash(&self.topic, Some(key), Uuid::nil()),
            Err(event_id) => hash::lane_hash(&self.topic, None, *event_id),
        }
    }
}
