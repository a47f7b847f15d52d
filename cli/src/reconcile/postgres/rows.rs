//! Rows of the queries, by column.

use sqlx::FromRow;
use uuid::Uuid;

use crate::reconcile::window::Millis;

/// The snapshot, and what it knows about itself.
#[derive(Debug, Clone, Copy, FromRow)]
pub struct Facts {
    /// The database's clock.
    pub now_ms: Millis,
    /// The consumer's number, if it has ever claimed anything.
    pub consumer_id: Option<i16>,
    /// The input topic's number, if anything of it was ever claimed.
    pub topic_id: Option<i16>,
    /// Rows below were dropped.
    pub rows_from_id: i64,
    /// Whether any were.
    pub is_leaf_dropped: bool,
    /// When the oldest row that is kept was made.
    pub oldest_row_ms: Option<Millis>,
}

macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),+ $(,)? })+) => {
        $($(#[$doc])* #[derive(Debug, Clone, FromRow)]
        #[expect(missing_docs, reason = "columns of the query of the same name")]
        pub struct $name { $(pub $field: $type),+ })+
    };
}

rows! {
    /// `first_records.sql`
    FirstRecord { topic: i32, partition: i32, timestamp_ms: Option<Millis> }
    /// `claimed_from.sql`
    ClaimedFrom { partition: i32, offset: i64 }
    /// `unclaimed.sql`
    Unclaimed { partition: i32, offset: i64, event_id: Uuid, timestamp_ms: Option<Millis> }
    /// `inputs.sql`
    Inputs { records: i64, own: i64, same: i64, other: i64 }
    /// `other_bodies.sql`
    OtherBody { partition: i32, offset: i64, event_id: Uuid, topic: String, claimed_partition: i32, claimed_offset: i64 }
    /// `claims_without_decision.sql`
    WithoutDecision { event_id: Uuid, topic: String, partition: i32, offset: i64, is_day_dropped: bool }
    /// `claims_without_row.sql`
    WithoutRow { event_id: Uuid, topic: String, partition: i32, offset: i64, is_set_aside: bool, claimed_ms: Millis }
    /// `other_letters.sql`
    OtherLetter { event_id: Uuid, topic: String, partition: i32, offset: i64, id: i64 }
    /// `decided_twice.sql`
    DecidedTwice { event_id: Uuid, times: i64, first_ms: Millis, last_ms: Millis, outcomes: String }
    /// `decisions_without_claim.sql`
    WithoutClaim { event_id: Uuid, decided_ms: Millis }
    /// `rows_twice.sql`
    RowsTwice { topic: i32, event_id: Uuid, times: i64, first_ms: Millis, last_ms: Millis, is_caused: bool }
    /// `published_without_record.sql`
    WithoutRecord { topic: i32, event_id: Uuid, id: i64, made_ms: Millis, key: Option<Vec<u8>> }
    /// `records_without_row.sql`
    Rowless { topic: i32, partition: i32, offset: i64, event_id: Option<Uuid>, outbox_id: Option<i64>, timestamp_ms: Option<Millis>, is_foreign: bool }
    /// `differing.sql`
    Differing { topic: i32, partition: i32, offset: i64, event_id: Uuid, id: i64, timestamp_ms: Option<Millis>, is_other_key: bool, is_other_payload: bool }
    /// `inversions.sql`
    Inversion { topic: i32, partition: i32, offset: i64, id: i64, event_id: Uuid, earlier_offset: Option<i64>, earlier_id: i64, earlier_ms: Millis, made_ms: Millis }
    /// `states.sql`
    State { topic: i32, is_failed: bool, is_pending: bool, is_side: bool, is_redriven: bool, is_on_topic: bool, is_old: bool, rows: i64, oldest_ms: Millis, id: i64, event_id: Uuid }
    /// `leases.sql`
    Lease { bucket: i16, owner: String, runs_ms: Millis, silent_ms: Option<Millis> }
    /// `occurrences.sql`
    Occurrences { topic: i32, repeats: i64, moved: i64 }
    /// `repeated.sql`
    Repeated { topic: i32, event_id: Uuid, partition: i32, offset: i64, occurrences: i64, is_moved: bool }
    /// `totals.sql`: claims by outcome, and decisions by theirs
    Total { is_decision: bool, outcome: String, count: i64 }
}
