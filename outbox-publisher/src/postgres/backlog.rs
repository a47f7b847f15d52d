//! How much waits and for how long, counted from the table: each instance its own buckets, so that the
//! sum over instances is the truth.

use sqlx::postgres::PgConnection;

use crate::ports::Held;

/// What waits in the buckets of one instance.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Backlog {
    /// PENDING rows, counted up to [`COUNT_MAX`] a bucket.
    pub events: i64,
    /// Age of the oldest PENDING row in seconds; 0 when nothing waits.
    pub oldest_age_seconds: f64,
    /// FAILED rows whose leaf is kept.
    pub failed: i64,
}

/// Rows of a bucket are counted up to this: a gauge must not cost more than what it measures. Twenty times as many
/// took half of a core as long as there were millions.
pub const COUNT_MAX: i64 = 1_000;

/// Counts.
///
/// # Errors
/// Those of the statement.
pub async fn count(connection: &mut PgConnection, held: &[Held]) -> Result<Backlog, sqlx::Error> {
    let buckets: Vec<i16> = held.iter().map(|held| held.bucket).collect();
    let low_ids: Vec<i64> = held.iter().map(|held| held.low_id).collect();
    let (events, oldest_age_seconds, failed): (i64, f64, i64) =
        sqlx::query_as(include_str!("../../queries/backlog.sql"))
            .bind(buckets)
            .bind(low_ids)
            .bind(COUNT_MAX)
            .fetch_one(connection)
            .await?;
    Ok(Backlog {
        events,
        oldest_age_seconds,
        failed,
    })
}
