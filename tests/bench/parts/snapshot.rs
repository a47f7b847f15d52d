//! A transaction that reads for long: no version of a row that it might still see can be removed.

use harness::Database;
use sqlx::{Connection, PgConnection};

/// A snapshot that is held until it is let go, or dropped.
pub(super) struct Snapshot(PgConnection);

impl Snapshot {
    /// Begins to read.
    pub(super) async fn take(database: &Database) -> anyhow::Result<Self> {
        let mut reader = database.connect().await?;
        // A snapshot is taken by the first statement.
        sqlx::raw_sql("begin isolation level repeatable read read only; select from outbox_events limit 1")
            .execute(&mut reader)
            .await?;
        Ok(Self(reader))
    }

    /// Ends it.
    pub(super) async fn let_go(self) -> anyhow::Result<()> {
        Ok(self.0.close().await?)
    }
}
