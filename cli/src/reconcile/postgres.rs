//! What Postgres says. The one place of this command with SQL; the statements stand in `queries/`.
//!
//! Records of the topics are copied into temporary tables of the session, as ids and digests; then one READ ONLY
//! snapshot is joined with them. What a join yields is handed on row by row: nothing here grows with the data.

mod rows;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::TryStreamExt as _;
use shared::config::DatabaseSettings;
use shared::postgres::{Session, check_schema, connect, connect_options};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc;

use super::copy::Rows;
use super::window::{Millis, Window};

/// Between two statements of the snapshot Kafka is read; the role's own bound would end the session.
const IDLE_MAX: Duration = Duration::from_secs(3_600);

pub use rows::*;

/// A temporary table that is filled from Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Input records.
    Input,
    /// Records of output topics.
    Record,
}

impl Table {
    const fn copy(self) -> &'static str {
        match self {
            Self::Input => "copy checked_input from stdin (format binary)",
            Self::Record => "copy checked_record from stdin (format binary)",
        }
    }
}

/// An output topic, by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberedTopic {
    /// Its name.
    pub name: String,
    /// Whether its records are looked at.
    pub is_read: bool,
}

/// A consumer's part of the joins.
#[derive(Debug, Clone, Copy)]
pub struct Consumer {
    /// The consumer's number.
    pub consumer_id: i16,
    /// The input topic's number.
    pub topic_id: Option<i16>,
}

/// A session with the temporary tables in it.
#[derive(Debug)]
pub struct Store {
    connection: PgConnection,
}

/// Runs a query and hands on each row.
macro_rules! each {
    ($store:expr, $file:literal, [$($bind:expr),*], $sink:expr) => {{
        let query = sqlx::query_as(include_str!(concat!("../../queries/", $file, ".sql")))$(.bind($bind))*;
        let mut rows = query.fetch(&mut $store.connection);
        let mut sink = $sink;
        while let Some(row) = rows.try_next().await.context(concat!("Postgres: ", $file))? {
            sink(row);
        }
        Ok(())
    }};
}

impl Store {
    /// Connects, checks that this can be told from here, and makes the temporary tables.
    pub async fn open(settings: &DatabaseSettings) -> anyhow::Result<Self> {
        let mut session = Session::new(settings);
        session.idle_in_transaction_timeout = IDLE_MAX;
        let options = connect_options(settings, "claimfirst").context("database.url")?;
        let mut connection = connect(&options, &session)
            .await
            .context("connect to Postgres (database.url): does it answer there, and may this login connect?")?;
        check_schema(&mut connection)
            .await
            .context("the services bring the schema up: outbox-publisher --migrate")?;
        let is_standby: bool = sqlx::query_scalar("select pg_is_in_recovery()")
            .fetch_one(&mut connection)
            .await
            .context("ask Postgres whether it is a standby")?;
        ensure!(
            !is_standby,
            "database.url is a standby: it may be behind what Kafka already has, and takes no temporary tables; give \
             the primary's address"
        );
        sqlx::raw_sql(include_str!("../../queries/tables.sql"))
            .execute(&mut connection)
            .await
            .context("make temporary tables: grant temporary on database ... to this login")?;
        Ok(Self { connection })
    }

    /// Topics that rows go to.
    pub async fn topics(&mut self) -> anyhow::Result<Vec<String>> {
        sqlx::query_scalar(
            "select topic from outbox_events group by topic union select topic from outbox_failed_archive",
        )
        .fetch_all(&mut self.connection)
        .await
        .context("Postgres: list the topics of outbox_events")
    }

    /// Consumers that have claimed anything.
    pub async fn consumers(&mut self) -> anyhow::Result<Vec<String>> {
        sqlx::query_scalar("select name from consumers order by name")
            .fetch_all(&mut self.connection)
            .await
            .context("Postgres: list the consumers")
    }

    /// Gives the topics their numbers: their places in the list.
    pub async fn number(&mut self, topics: &[NumberedTopic]) -> anyhow::Result<()> {
        let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
        let read: Vec<bool> = topics.iter().map(|topic| topic.is_read).collect();
        sqlx::query(
            "insert into checked_topic select n - 1, name, is_read \
             from unnest($1::text[], $2::boolean[]) with ordinality as t (name, is_read, n)",
        )
        .bind(names)
        .bind(read)
        .execute(&mut self.connection)
        .await
        .context("Postgres: number the topics")?;
        Ok(())
    }

    /// Fills a temporary table with encoded rows until their sender is gone. Returns how many rows that were.
    pub async fn fill(&mut self, table: Table, mut chunks: mpsc::Receiver<Vec<u8>>) -> anyhow::Result<u64> {
        let doing = "Postgres: copy ids and digests of records into a temporary table";
        let mut copy = self.connection.copy_in_raw(table.copy()).await.context(doing)?;
        copy.send(Rows::header()).await.context(doing)?;
        while let Some(chunk) = chunks.recv().await {
            copy.send(chunk).await.context(doing)?;
        }
        copy.send(Rows::trailer()).await.context(doing)?;
        copy.finish().await.context(doing)
    }

    /// Tells the planner how large the temporary tables are.
    pub async fn analyze(&mut self) -> anyhow::Result<()> {
        sqlx::raw_sql("analyze checked_input; analyze checked_record; analyze checked_first; analyze checked_row")
            .execute(&mut self.connection)
            .await
            .context("Postgres: analyze temporary tables")?;
        Ok(())
    }

    /// Takes the snapshot. Tables are locked first, since a leaf that is dropped takes its rows out of a snapshot, too;
    /// inserts and updates go on, upkeep waits until this session ends.
    pub async fn take_snapshot(&mut self, consumer: &str, input: &str) -> anyhow::Result<Facts> {
        sqlx::raw_sql(
            "begin isolation level repeatable read, read only; \
             lock table outbox_events, outbox_failed_archive, processed_events, decisions in access share mode",
        )
        .execute(&mut self.connection)
        .await
        .context("Postgres: lock the tables against being dropped; upkeep may have held them, try again")?;
        sqlx::query_as(include_str!("../../queries/facts.sql"))
            .bind(consumer)
            .bind(input)
            .fetch_one(&mut self.connection)
            .await
            .context("Postgres: take a snapshot")
    }

    /// Copies what is compared of the outbox. Returns how many rows there are.
    pub async fn take_rows(&mut self) -> anyhow::Result<u64> {
        let done = sqlx::query(include_str!("../../queries/rows.sql"))
            .execute(&mut self.connection)
            .await
            .context("Postgres: read outbox_events")?;
        Ok(done.rows_affected())
    }

    /// Finds the first occurrence of each event.
    pub async fn take_firsts(&mut self) -> anyhow::Result<()> {
        sqlx::query(include_str!("../../queries/firsts.sql"))
            .execute(&mut self.connection)
            .await
            .context("Postgres: find first occurrences")?;
        Ok(())
    }

    /// When the first record of each partition was made, at or above these offsets.
    pub async fn first_records(
        &mut self,
        lows: &[(i32, i32, i64)],
        sink: impl FnMut(FirstRecord),
    ) -> anyhow::Result<()> {
        let topics: Vec<i32> = lows.iter().map(|low| low.0).collect();
        let partitions: Vec<i32> = lows.iter().map(|low| low.1).collect();
        let offsets: Vec<i64> = lows.iter().map(|low| low.2).collect();
        each!(self, "first_records", [topics, partitions, offsets], sink)
    }

    /// By partition, the lowest place of a claim that was made since.
    pub async fn claimed_from(
        &mut self,
        consumer: Consumer,
        since: Millis,
        sink: impl FnMut(ClaimedFrom),
    ) -> anyhow::Result<()> {
        each!(
            self,
            "claimed_from",
            [consumer.consumer_id, consumer.topic_id, since],
            sink
        )
    }

    /// Input records whose event is not claimed.
    pub async fn unclaimed(&mut self, consumer: Consumer, sink: impl FnMut(Unclaimed)) -> anyhow::Result<()> {
        each!(self, "unclaimed", [consumer.consumer_id], sink)
    }

    /// Input records by what became of them.
    pub async fn inputs(&mut self, consumer: Consumer, sink: impl FnMut(Inputs)) -> anyhow::Result<()> {
        each!(self, "inputs", [consumer.consumer_id, consumer.topic_id], sink)
    }

    /// The first few input records with another body than their claim's.
    pub async fn other_bodies(
        &mut self,
        consumer: Consumer,
        limit: i64,
        sink: impl FnMut(OtherBody),
    ) -> anyhow::Result<()> {
        each!(
            self,
            "other_bodies",
            [consumer.consumer_id, consumer.topic_id, limit],
            sink
        )
    }

    /// Claims that are decided, without a decision.
    pub async fn claims_without_decision(
        &mut self,
        consumer: Consumer,
        window: &Window,
        sink: impl FnMut(WithoutDecision),
    ) -> anyhow::Result<()> {
        each!(
            self,
            "claims_without_decision",
            [consumer.consumer_id, window.since, window.until],
            sink
        )
    }

    /// Claims without an outbox row.
    pub async fn claims_without_row(
        &mut self,
        consumer: Consumer,
        window: &Window,
        sink: impl FnMut(WithoutRow),
    ) -> anyhow::Result<()> {
        each!(
            self,
            "claims_without_row",
            [consumer.consumer_id, window.since, window.until],
            sink
        )
    }

    /// Dead letters that are not their record.
    pub async fn other_letters(
        &mut self,
        consumer: Consumer,
        window: &Window,
        sink: impl FnMut(OtherLetter),
    ) -> anyhow::Result<()> {
        each!(
            self,
            "other_letters",
            [consumer.consumer_id, window.since, window.until],
            sink
        )
    }

    /// Events with several decisions.
    pub async fn decided_twice(
        &mut self,
        consumer: Consumer,
        window: &Window,
        sink: impl FnMut(DecidedTwice),
    ) -> anyhow::Result<()> {
        each!(
            self,
            "decided_twice",
            [consumer.consumer_id, window.since, window.until],
            sink
        )
    }

    /// Decisions whose event is not claimed.
    pub async fn decisions_without_claim(
        &mut self,
        consumer: Consumer,
        window: &Window,
        sink: impl FnMut(WithoutClaim),
    ) -> anyhow::Result<()> {
        each!(
            self,
            "decisions_without_claim",
            [consumer.consumer_id, window.since, window.until],
            sink
        )
    }

    /// Decisions of the consumer by outcome, and its claims.
    pub async fn totals(&mut self, consumer: Consumer, window: &Window, sink: impl FnMut(Total)) -> anyhow::Result<()> {
        each!(self, "totals", [consumer.consumer_id, window.since, window.until], sink)
    }

    /// Event ids with several rows on one topic.
    pub async fn rows_twice(&mut self, sink: impl FnMut(RowsTwice)) -> anyhow::Result<()> {
        each!(self, "rows_twice", [], sink)
    }

    /// PUBLISHED rows without a record.
    pub async fn published_without_record(&mut self, sink: impl FnMut(WithoutRecord)) -> anyhow::Result<()> {
        each!(self, "published_without_record", [], sink)
    }

    /// Records without a row.
    pub async fn records_without_row(&mut self, sink: impl FnMut(Rowless)) -> anyhow::Result<()> {
        each!(self, "records_without_row", [], sink)
    }

    /// Records that are not their row, byte for byte.
    pub async fn differing(&mut self, sink: impl FnMut(Differing)) -> anyhow::Result<()> {
        each!(self, "differing", [], sink)
    }

    /// Records that stand before one which they were to follow.
    pub async fn inversions(&mut self, sink: impl FnMut(Inversion)) -> anyhow::Result<()> {
        each!(self, "inversions", [], sink)
    }

    /// Rows that are not simply PUBLISHED; those made before a moment count as old.
    pub async fn states(&mut self, old: Millis, window: &Window, sink: impl FnMut(State)) -> anyhow::Result<()> {
        each!(self, "states", [old, window.since, window.until], sink)
    }

    /// Leases of instances that are silent at the snapshot's time.
    pub async fn leases(&mut self, now: Millis, sink: impl FnMut(Lease)) -> anyhow::Result<()> {
        each!(self, "leases", [now], sink)
    }

    /// How often events stand on a topic again, and how many stand on two partitions.
    pub async fn occurrences(&mut self, sink: impl FnMut(Occurrences)) -> anyhow::Result<()> {
        each!(self, "occurrences", [], sink)
    }

    /// The first few events that stand on a topic more than once.
    pub async fn repeated(&mut self, limit: i64, sink: impl FnMut(Repeated)) -> anyhow::Result<()> {
        each!(self, "repeated", [limit], sink)
    }

    /// Ends the session; its temporary tables go with it.
    pub async fn close(self) -> anyhow::Result<()> {
        self.connection.close().await.context("leave Postgres")
    }
}
