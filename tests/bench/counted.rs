//! What Postgres has counted of a round, by row.

use anyhow::Context;
use harness::Database;

use crate::site::Site;

/// Counters of a database at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Counters {
    statements: i64,
    commits: i64,
}

/// What the rows of a round have cost, each.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// Statements that clients sent.
    pub statements: f64,
    /// Transactions that committed, those of autovacuum among them.
    pub commits: f64,
    /// Versions of rows that nobody sees any more and nobody has pruned yet, in all tables.
    pub dead_tuples: f64,
    /// Bytes of all indexes.
    pub index_bytes: f64,
    /// Share of the updates of the outbox that were HOT.
    pub hot_share: f64,
}

impl Counters {
    /// Now.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn now(site: &Site, database: &Database) -> anyhow::Result<Self> {
        Ok(Self {
            statements: site.statements(database).await?,
            commits: site.commits(database).await?,
        })
    }

    /// What was counted since, of so many rows; sessions tell what they have counted when they end, so whoever is
    /// measured has ended.
    ///
    /// # Errors
    /// If the server does not answer, or the outbox has had no update.
    pub async fn until_now(&self, site: &Site, database: &Database, rows: u64) -> anyhow::Result<Counted> {
        let now = Self::now(site, database).await?;
        let mut connection = database.connect().await?;
        let tables = "select sum(n_dead_tup)::float8, sum(pg_indexes_size(relid))::float8, \
                             sum(n_tup_hot_upd) filter (where is_outbox)::float8 \
                             / nullif(sum(n_tup_upd) filter (where is_outbox), 0)::float8 \
                        from pg_stat_user_tables, lateral (select relname ~ '^outbox_events_[0-9]+$' as is_outbox) o";
        let (dead, index, hot_share): (f64, f64, Option<f64>) =
            sqlx::query_as(tables).fetch_one(&mut connection).await?;
        let rows = rows as f64;
        Ok(Counted {
            statements: (now.statements - self.statements) as f64 / rows,
            commits: (now.commits - self.commits) as f64 / rows,
            dead_tuples: dead / rows,
            index_bytes: index / rows,
            hot_share: hot_share.context("the outbox has had updates")?,
        })
    }
}
