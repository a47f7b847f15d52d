//! Upkeep of the tables: leaves made ahead, old ones dropped, claims thinned.
//!
//! The functions live in the schema and belong to its owner. One instance at a time does it, under an
//! advisory lock; each piece of work is a transaction of its own. Failures are logged and counted and
//! tried again the next time: leaves are made far enough ahead that nobody has to wait for this.

use std::time::Duration;

use shared::postgres::{Session, connect};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::metrics::Metrics;

/// What is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upkeep {
    /// Time between two rounds.
    pub interval: Duration,
    /// Age at which claims go. Kafka must not be able to redeliver what is older.
    pub claims_retention: Duration,
    /// Age at which decisions go.
    pub decisions_retention: Duration,
    /// Days of leaves made ahead for claims and decisions.
    pub days_ahead: i32,
    /// Ids in one leaf of the outbox.
    pub outbox_leaf_rows: i64,
    /// Whole leaves of the outbox above the newest id.
    pub outbox_leaves_ahead: i32,
    /// Claims deleted at a time from the leaves that are never dropped.
    pub thin_rows: i32,
}

/// A round that takes longer waits for a host that does not answer.
const ROUND_MAX: Duration = Duration::from_secs(15 * 60);
/// Deletes of one round; the next round goes on.
const THIN_ROUNDS_MAX: usize = 200;

/// Runs a round at once and then at each interval, until `shutdown`.
pub async fn run(
    connect_options: PgConnectOptions,
    session: Session,
    upkeep: Upkeep,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    loop {
        let round = async {
            match connect(&connect_options, &session).await {
                Ok(mut connection) => round(&mut connection, &upkeep, &metrics).await,
                Err(error) => note("connect", error, &metrics),
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            ended = tokio::time::timeout(ROUND_MAX, round) => if ended.is_err() {
                metrics.maintenance_failures.inc();
                warn!("upkeep given up after {ROUND_MAX:?}");
            },
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(upkeep.interval) => {}
        }
    }
}

async fn round(connection: &mut PgConnection, upkeep: &Upkeep, metrics: &Metrics) {
    // Held by the session: it goes with the connection at the end of the round.
    let lock = sqlx::query_scalar("select pg_try_advisory_lock(hashtextextended('triage_maintenance', 0))");
    match lock.fetch_one(&mut *connection).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => return note("lock", error, metrics),
    }
    for day in -1..=upkeep.days_ahead {
        const MAKE_CLAIMS: &str = "select claims_make_leaf((clock_timestamp() at time zone 'UTC')::date + $1)";
        const MAKE_DECISIONS: &str = "select decisions_make_leaf((clock_timestamp() at time zone 'UTC')::date + $1)";
        for (what, statement) in [
            ("make a leaf of claims", MAKE_CLAIMS),
            ("make a leaf of decisions", MAKE_DECISIONS),
        ] {
            let made = sqlx::query_scalar::<_, bool>(statement)
                .bind(day)
                .fetch_one(&mut *connection)
                .await;
            if made.unwrap_or_else(|error| {
                note(what, error, metrics);
                false
            }) {
                info!("{what}: {day} days ahead");
            }
        }
    }
    let made = sqlx::query_scalar::<_, i32>("select outbox_make_leaves($1, $2)")
        .bind(upkeep.outbox_leaf_rows)
        .bind(upkeep.outbox_leaves_ahead)
        .fetch_one(&mut *connection)
        .await;
    if let Err(error) = made {
        note("make leaves of the outbox", error, metrics);
    }
    drop_leaves(
        connection,
        "select claims_drop_leaf($1 * interval '1 second')",
        upkeep.claims_retention,
        metrics,
    )
    .await;
    drop_leaves(
        connection,
        "select decisions_drop_leaf($1 * interval '1 second')",
        upkeep.decisions_retention,
        metrics,
    )
    .await;
    thin(connection, upkeep, metrics).await;
}

async fn drop_leaves(connection: &mut PgConnection, statement: &'static str, retention: Duration, metrics: &Metrics) {
    loop {
        let dropped = sqlx::query_scalar::<_, Option<String>>(statement)
            .bind(retention.as_secs_f64())
            .fetch_one(&mut *connection)
            .await;
        match dropped {
            Ok(Some(leaf)) => info!("dropped {leaf}"),
            Ok(None) => return,
            Err(error) => return note("drop a leaf", error, metrics),
        }
    }
}

async fn thin(connection: &mut PgConnection, upkeep: &Upkeep, metrics: &Metrics) {
    for _ in 0..THIN_ROUNDS_MAX {
        let gone = sqlx::query_scalar::<_, i64>("select claims_thin($1 * interval '1 second', $2)")
            .bind(upkeep.claims_retention.as_secs_f64())
            .bind(upkeep.thin_rows)
            .fetch_one(&mut *connection)
            .await;
        match gone {
            Ok(gone) if gone >= i64::from(upkeep.thin_rows) => {}
            Ok(_) => return,
            Err(error) => return note("thin claims", error, metrics),
        }
    }
}

fn note(what: &str, error: sqlx::Error, metrics: &Metrics) {
    metrics.maintenance_failures.inc();
    warn!("upkeep could not {what}: {error}");
}
