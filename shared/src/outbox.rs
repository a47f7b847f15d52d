//! Enqueue events inside your own transaction; the outbox publisher sends them to Kafka.
//!
//! ```no_run
//! # async fn f(pool: sqlx::PgPool, doorbell: shared::doorbell::Doorbell) -> Result<(), Box<dyn std::error::Error>> {
//! use shared::outbox::{self, NewEvent};
//!
//! let mut tx = pool.begin().await?;
//! sqlx::query("insert into orders (id, total) values ($1, $2)").bind(7_i64).bind(4200_i64).execute(&mut *tx).await?;
//! let event = NewEvent::new("shop.order-placed.v1", "shop.order.placed", br#"{"total":4200}"#.to_vec()).key("order-7");
//! outbox::enqueue(&mut tx, &event).await?;
//! tx.commit().await?;
//! doorbell.ring(); // after the commit: the publisher looks at once instead of at its next poll
//! # Ok(()) }
//! ```
//!
//! # Delivery and order
//! An event of a committed transaction is published at least once, under its id; consumers that drop
//! ids they know see it once. Per (topic, key), event *a* comes before *b* if *a*'s transaction had
//! committed before *b* was enqueued, or if one transaction enqueued both, *a* first. Transactions that
//! run side by side have no order between them; where they need one, use [`enqueue_ordered`], which
//! makes them take turns per key. Events without a key have no order.

use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use crate::hash;
use crate::headers::Headers;
use crate::kafka::is_topic_name;

/// An event to be published, before it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    event_id: Uuid,
    topic: String,
    key: Option<Vec<u8>>,
    event_type: String,
    content_type: String,
    payload: Option<Vec<u8>>,
    headers: Headers,
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl NewEvent {
    /// An event without a key, under a new UUIDv7, its content type `application/json`.
    pub fn new(topic: impl Into<String>, event_type: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            event_id: Uuid::now_v7(),
            topic: topic.into(),
            key: None,
            event_type: event_type.into(),
            content_type: "application/json".to_owned(),
            payload: Some(payload.into()),
            headers: Headers::new(),
            traceparent: None,
            tracestate: None,
        }
    }

    /// An event with a key and no value, which deletes the key from a compacted topic.
    pub fn tombstone(topic: impl Into<String>, event_type: impl Into<String>, key: impl Into<Vec<u8>>) -> Self {
        Self {
            payload: None,
            ..Self::new(topic, event_type, Vec::new())
        }
        .key(key)
    }

    /// Sets the key: events of one topic and key keep their order, and meet one partition.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the id by which consumers recognise a repeated event. Give the same id to the same fact.
    #[must_use]
    pub fn event_id(mut self, event_id: Uuid) -> Self {
        self.event_id = event_id;
        self
    }

    /// Sets the content type.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = content_type.into();
        self
    }

    /// Sets headers of your own. The publisher adds `event-id`, `event-type`, `content-type`,
    /// `outbox-id`, `outbox-epoch` and the trace context behind them.
    #[must_use]
    pub fn headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// Sets the W3C trace context that the published record carries.
    #[must_use]
    pub fn trace_context(mut self, traceparent: impl Into<String>, tracestate: Option<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self.tracestate = tracestate;
        self
    }

    /// The id it will be published under.
    pub fn id(&self) -> Uuid {
        self.event_id
    }

    fn check(&self) -> Result<(), EnqueueError> {
        let topic = &self.topic;
        if !is_topic_name(topic) {
            return Err(EnqueueError::Topic {
                event_id: self.event_id,
                topic: topic.clone(),
            });
        }
        for (field, text) in [("event_type", &self.event_type), ("content_type", &self.content_type)] {
            if text.is_empty() || text.contains('\0') {
                return Err(EnqueueError::Field {
                    event_id: self.event_id,
                    field,
                });
            }
        }
        Ok(())
    }
}

/// Why events were not enqueued.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// Kafka would refuse the topic's name. Nothing was sent to the database; the transaction is whole.
    #[error("event {event_id}: topic {topic:?} is not 1 to 249 of the characters a-z A-Z 0-9 . _ -, or it is . or ..")]
    Topic {
        /// Whose topic.
        event_id: Uuid,
        /// The name as given.
        topic: String,
    },
    /// A text is empty or holds NUL. Nothing was sent to the database; the transaction is whole.
    #[error("event {event_id}: {field} is empty or holds a NUL character")]
    Field {
        /// Whose field.
        event_id: Uuid,
        /// Which field.
        field: &'static str,
    },
    /// The database refused or was lost: the transaction is over; roll back and try it anew.
    #[error("store {count} outbox events")]
    Database {
        /// How many were to be stored.
        count: usize,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
}

/// Stores one event in the caller's transaction.
///
/// # Errors
/// See [`EnqueueError`]. After [`EnqueueError::Database`] the transaction cannot go on.
///
/// # Cancel safety
/// Not safe to go on with the transaction after dropping this future: drop the transaction too, which
/// rolls it back.
pub async fn enqueue(tx: &mut Transaction<'_, Postgres>, event: &NewEvent) -> Result<(), EnqueueError> {
    enqueue_all(tx, std::slice::from_ref(event)).await
}

/// Stores many events in the caller's transaction, in their order, with one statement.
///
/// # Errors
/// See [`EnqueueError`]. The events are checked before the first is stored.
///
/// # Cancel safety
/// As [`enqueue`].
pub async fn enqueue_all(tx: &mut Transaction<'_, Postgres>, events: &[NewEvent]) -> Result<(), EnqueueError> {
    store(tx, events, false).await
}

/// Like [`enqueue_all`], but transactions that enqueue events of the same topic and key take turns:
/// the second waits until the first has ended. So their events have an order, that of the turns.
///
/// The locks are taken in one order whatever the order of the events, and held until the transaction
/// ends. Call it once per transaction, or with keys in the same order everywhere: two transactions that
/// call it twice with crossed keys can deadlock, and Postgres then ends one of them.
///
/// # Errors
/// See [`EnqueueError`].
///
/// # Cancel safety
/// As [`enqueue`].
pub async fn enqueue_ordered(tx: &mut Transaction<'_, Postgres>, events: &[NewEvent]) -> Result<(), EnqueueError> {
    for event in events {
        event.check()?;
    }
    let mut locks: Vec<i64> = events.iter().filter_map(ordering_lock).collect();
    locks.sort_unstable();
    locks.dedup();
    // The array keeps its order: one order of locks for all writers, or two of them could deadlock.
    sqlx::query(
        "select pg_advisory_xact_lock(lock) from unnest($1::bigint[]) with ordinality u(lock, place) order by place",
    )
    .bind(locks)
    .execute(&mut **tx)
    .await
    .map_err(|source| EnqueueError::Database {
        count: events.len(),
        source,
    })?;
    store(tx, events, true).await
}

/// The advisory lock of a (topic, key). Two pairs may share one: then they take turns for nothing.
fn ordering_lock(event: &NewEvent) -> Option<i64> {
    let key = event.key.as_deref()?;
    let lane = hash::lane_hash(&event.topic, Some(key), event.event_id);
    Some(i64::from(hash::murmur2(key)) << 32 | i64::from(lane as u32))
}

async fn store(tx: &mut Transaction<'_, Postgres>, events: &[NewEvent], is_ordered: bool) -> Result<(), EnqueueError> {
    for event in events {
        event.check()?;
    }
    if events.is_empty() {
        return Ok(());
    }
    let count = events.len();
    sqlx::query(include_str!("../queries/enqueue.sql"))
        .bind(column(events, |e| hash::bucket_of(e.key.as_deref(), e.event_id)))
        .bind(column(events, |e| {
            hash::lane_hash(&e.topic, e.key.as_deref(), e.event_id)
        }))
        .bind(column(events, |e| e.event_id))
        .bind(column(events, |e| e.topic.as_str()))
        .bind(column(events, |e| e.key.as_deref()))
        .bind(column(events, |e| e.event_type.as_str()))
        .bind(column(events, |e| e.content_type.as_str()))
        .bind(column(events, |e| e.payload.as_deref()))
        .bind(column(events, |e| e.headers.encode()))
        .bind(column(events, |e| e.traceparent.as_deref()))
        .bind(column(events, |e| e.tracestate.as_deref()))
        .bind(is_ordered)
        .execute(&mut **tx)
        .await
        .map_err(|source| EnqueueError::Database { count, source })?;
    Ok(())
}

fn column<'a, T>(events: &'a [NewEvent], of: impl Fn(&'a NewEvent) -> T) -> Vec<T> {
    events.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_kafka_would_refuse_is_refused_before_the_database() {
        for topic in ["", "white space", "ümlaut", &"x".repeat(250), ".", ".."] {
            let event = NewEvent::new(topic, "t", "{}");
            assert!(matches!(event.check(), Err(EnqueueError::Topic { .. })), "{topic}");
        }
        assert!(NewEvent::new("shop.order-placed.v1", "t", "{}").check().is_ok());
    }

    #[test]
    fn a_text_with_nul_is_refused_with_its_field() {
        let error = NewEvent::new("t", "a\0b", "{}").check().unwrap_err();
        assert!(error.to_string().contains("event_type"), "{error}");
    }
}
