//! A row as anybody might write it, by plain SQL.

use sqlx::postgres::PgConnection;
use uuid::Uuid;

/// A row, column by column; `None` leaves a column to the schema.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// The event.
    pub event_id: Option<Uuid>,
    /// The topic.
    pub topic: String,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The payload.
    pub payload: Option<Vec<u8>>,
    pub(super) id: Option<i64>,
    pub(super) bucket: Option<i32>,
    pub(super) lane_hash: Option<i32>,
    pub(super) lane: Option<i32>,
    pub(super) status: Option<&'static str>,
    pub(super) event_type: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) headers: Option<Vec<u8>>,
    pub(super) traceparent: Option<String>,
    pub(super) tracestate: Option<String>,
    pub(super) created_at: Option<&'static str>,
    pub(super) next_attempt_at: Option<&'static str>,
    pub(super) publish_attempts: Option<i32>,
    pub(super) inserted_xid: Option<&'static str>,
    pub(super) ended_below: Option<&'static str>,
    pub(super) is_ordered: Option<bool>,
}

/// An insert as anybody might write it.
const INSERT: &str = "insert into outbox_events (id, event_id, bucket, lane_hash, lane, status, topic, key, payload, event_type, \
        content_type, headers, traceparent, tracestate, created_at, next_attempt_at, publish_attempts, inserted_xid, \
        ended_below, is_ordered) \
    values (coalesce($1, nextval('outbox_events_id_seq')), $2, coalesce($3, outbox_bucket($8, $2)), \
        coalesce($4, outbox_lane_hash($7, $8, $2)), coalesce($5, 0), coalesce($6, 'PENDING')::outbox_status, $7, $8, $9, $10, \
        coalesce($11, 'application/json'), $12, $13, $14, coalesce($15::timestamptz, clock_timestamp()), $16::timestamptz, \
        coalesce($17, 0), coalesce($18::xid8, pg_current_xact_id()), $19::xid, coalesce($20, false))";

impl Row {
    /// Writes it, a transaction of its own.
    ///
    /// # Errors
    /// If the schema refuses it.
    pub async fn insert(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query(INSERT)
            .bind(self.id)
            .bind(self.event_id)
            .bind(self.bucket)
            .bind(self.lane_hash)
            .bind(self.lane)
            .bind(self.status)
            .bind(&self.topic)
            .bind(&self.key)
            .bind(&self.payload)
            .bind(&self.event_type)
            .bind(&self.content_type)
            .bind(&self.headers)
            .bind(&self.traceparent)
            .bind(&self.tracestate)
            .bind(self.created_at)
            .bind(self.next_attempt_at)
            .bind(self.publish_attempts)
            .bind(self.inserted_xid)
            .bind(self.ended_below)
            .bind(self.is_ordered)
            .execute(connection)
            .await?;
        Ok(())
    }
}
