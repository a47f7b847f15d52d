//! Makes leaves ahead of the newest id and drops those that nothing needs any more.
//!
//! Every instance does it; the functions of the schema take turns by themselves and do nothing twice.
//! A failure is counted and repeated: rows are written and published all the same, for days.

use std::time::Duration;

use shared::postgres::{self, Session};
use sqlx::postgres::{PgConnectOptions, PgConnection};

use crate::config::RetentionSettings;
use crate::metrics::Metrics;

/// A round that hangs is given up; scanning a whole leaf twice before it is dropped takes less.
const WAIT: Duration = Duration::from_secs(600);

/// Maintains until it is dropped.
///
/// # Errors
/// None: it goes on whatever happens.
pub(crate) async fn run(
    options: PgConnectOptions,
    session: Session,
    retention: RetentionSettings,
    metrics: Metrics,
) -> anyhow::Result<()> {
    let pause = Duration::from_secs(retention.interval_seconds);
    loop {
        let done = tokio::time::timeout(WAIT, once(&options, &session, &retention, &metrics)).await;
        let failure = match done {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no end within {WAIT:?}")),
        };
        if let Some(failure) = failure {
            metrics.maintenance_failures.inc();
            tracing::warn!("maintenance is repeated in {pause:?}: {failure}");
        }
        tokio::time::sleep(pause).await;
    }
}

async fn once(
    options: &PgConnectOptions,
    session: &Session,
    retention: &RetentionSettings,
    metrics: &Metrics,
) -> Result<(), sqlx::Error> {
    let mut connection = postgres::connect(options, session).await?;
    let made: i32 = sqlx::query_scalar("select outbox_make_leaves($1, $2)")
        .bind(retention.leaf_rows)
        .bind(retention.leaves_ahead)
        .fetch_one(&mut connection)
        .await?;
    if made > 0 {
        tracing::info!("made {made} outbox leaves ahead");
    }
    while let Some(leaf) = drop_leaf(&mut connection, retention.published_hours).await? {
        tracing::info!("dropped outbox leaf {leaf}, its rows were past the retention");
    }
    let ahead: i64 = sqlx::query_scalar(
        "select count(*) from outbox_leaves where dropped_at is null and lower_id > (select last_value from outbox_events_id_seq)",
    )
    .fetch_one(&mut connection)
    .await?;
    metrics.leaves_ahead.set(ahead);
    Ok(())
}

async fn drop_leaf(connection: &mut PgConnection, hours: u64) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("select outbox_drop_leaf(make_interval(hours => $1))")
        .bind(i32::try_from(hours).unwrap_or(i32::MAX))
        .fetch_one(connection)
        .await
}
