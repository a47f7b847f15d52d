//! The limit of Postgres: the services' own statements, on the rows that they wrote, by a client that
//! does nothing else. No Kafka, no decision, no lease, no order to keep.

use std::sync::Arc;

use anyhow::Context;
use shared::config::{DatabaseSettings, DatabaseUrl};
use shared::postgres::{self, Session};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, FromRow};
use tokio::task::JoinSet;
use uuid::Uuid;

/// Connections that write at the same time: enough that one waits for the disk while others write.
const WRITERS: usize = 4;
/// Events of one transaction.
const BATCH: usize = 500;
/// Rows that one read returns per bucket, as a publisher's does at most.
const READ_ROWS: i32 = 256;
/// Rows that one statement settles, as the publisher's bound.
const SETTLE_ROWS: usize = 4_000;

const CLAIM: &str = include_str!("../../triage-service/src/postgres/queries/claim.sql");
const APPEND: &str = include_str!("../../triage-service/src/postgres/queries/append.sql");
const READ: &str = include_str!("../../outbox-publisher/queries/read.sql");
const SETTLE: &str = include_str!("../../outbox-publisher/queries/settle.sql");

/// A claim, its decision and its outbox event, as a service wrote them.
#[derive(Debug, FromRow)]
pub struct Written {
    event_id: Uuid,
    unix_day: Option<i32>,
    topic_id: i16,
    kafka_partition: i32,
    kafka_offset: i64,
    payload_digest: Vec<u8>,
    event_id_text: Option<String>,
    decision_id: Uuid,
    outcome: String,
    reason_code: String,
    rule: String,
    reasons: String,
    policy_version: String,
    policy_digest: Vec<u8>,
    input_id: String,
    input_digest: Vec<u8>,
    input: Option<Vec<u8>>,
    output_digest: Vec<u8>,
    attributes: Option<Vec<u8>>,
    lane_hash: i32,
    bucket: i16,
    outbox_event_id: Uuid,
    topic: String,
    event_type: String,
    content_type: String,
    traceparent: Option<String>,
    tracestate: Option<String>,
    key: Option<Vec<u8>>,
    headers: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
}

/// Everything that was written about decided events, in the order of the outbox.
///
/// # Errors
/// If the server does not answer.
pub async fn written(url: &str) -> anyhow::Result<Vec<Written>> {
    let mut connection = PgConnection::connect(url).await?;
    let rows = sqlx::query_as(
        "select p.event_id, case when p.claim_day > '-infinity' then p.claim_day - date '1970-01-01' end as unix_day, \
                p.topic_id, p.kafka_partition, p.kafka_offset, p.payload_digest, p.event_id_text, \
                d.decision_id, d.outcome::text, d.reason_code, d.rule, d.reasons, d.policy_version, d.policy_digest, \
                d.input_id, d.input_digest, d.input, d.output_digest, d.attributes, \
                e.lane_hash, e.bucket, e.event_id as outbox_event_id, e.topic, e.event_type, e.content_type, \
                e.traceparent, e.tracestate, e.key, e.headers, e.payload \
           from processed_events p \
           join decisions d using (event_id, consumer_id) \
           join outbox_events e on e.source_partition = p.kafka_partition and e.source_offset = p.kafka_offset \
          order by e.id",
    )
    .fetch_all(&mut connection)
    .await
    .context("read what the services wrote")?;
    connection.close().await?;
    Ok(rows)
}

/// Connections as the services have them, to a database of its own.
pub struct Bare {
    writers: Vec<PgConnection>,
    reader: PgConnection,
    settler: PgConnection,
}

impl Bare {
    /// Brings up the schema and connects.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        let settings = DatabaseSettings {
            url: DatabaseUrl::new(url),
            ..DatabaseSettings::default()
        };
        postgres::migrate(&settings).await?;
        let options = postgres::connect_options(&settings, "bare-client")?;
        let mut writers = Vec::new();
        for _ in 0..WRITERS {
            writers.push(postgres::connect(&options, &Session::new(&settings)).await?);
        }
        Ok(Self {
            writers,
            reader: postgres::connect(&options, &Session::new(&settings).indexed()).await?,
            settler: postgres::connect(&options, &Session::new(&settings).indexed().replanned().async_commit()).await?,
        })
    }

    /// Writes the rows as the workers of a triage service do, once.
    ///
    /// # Errors
    /// If the server refuses something.
    pub async fn write(&mut self, rows: Vec<Written>) -> anyhow::Result<()> {
        let rows = Arc::new(rows);
        let mut writing = JoinSet::new();
        for (number, mut writer) in std::mem::take(&mut self.writers).into_iter().enumerate() {
            let rows = Arc::clone(&rows);
            writing.spawn(async move {
                for batch in rows.chunks(BATCH).skip(number).step_by(WRITERS) {
                    write(&mut writer, batch).await?;
                }
                anyhow::Ok(writer.close().await?)
            });
        }
        while let Some(written) = writing.join_next().await {
            written.context("a writer panicked")??;
        }
        Ok(())
    }

    /// Reads what waits as a publisher does and settles it; how many rows.
    ///
    /// # Errors
    /// If the server refuses something.
    pub async fn read_and_settle(&mut self) -> anyhow::Result<usize> {
        read_and_settle(&mut self.reader, &mut self.settler).await
    }
}

async fn write(connection: &mut PgConnection, batch: &[Written]) -> anyhow::Result<()> {
    /// A column of the batch.
    fn of<'r, T>(batch: &'r [Written], column: impl Fn(&'r Written) -> T) -> Vec<T> {
        batch.iter().map(column).collect()
    }
    const CONSUMER: i16 = 1;
    let b = batch;
    connection.execute("begin").await?;
    let claimed: Vec<Uuid> = sqlx::query_scalar(CLAIM)
        .bind(CONSUMER)
        .bind(of(b, |row| row.event_id))
        .bind(of(b, |row| row.unix_day))
        .bind(of(b, |row| row.topic_id))
        .bind(of(b, |row| row.kafka_partition))
        .bind(of(b, |row| row.kafka_offset))
        .bind(of(b, |row| &row.payload_digest[..]))
        .bind(of(b, |row| row.event_id_text.as_deref()))
        .bind(of(b, |_| None::<&str>))
        .fetch_all(&mut *connection)
        .await?;
    anyhow::ensure!(claimed.len() == b.len(), "the bare client's database is not empty");
    sqlx::query(APPEND)
        .bind(CONSUMER)
        .bind(of(b, |row| row.decision_id))
        .bind(of(b, |row| row.event_id))
        .bind(of(b, |row| &row.outcome[..]))
        .bind(of(b, |row| &row.reason_code[..]))
        .bind(of(b, |row| &row.rule[..]))
        .bind(of(b, |row| &row.reasons[..]))
        .bind(of(b, |row| &row.policy_version[..]))
        .bind(of(b, |row| &row.policy_digest[..]))
        .bind(of(b, |row| &row.input_id[..]))
        .bind(of(b, |row| &row.input_digest[..]))
        .bind(of(b, |row| row.input.as_deref()))
        .bind(of(b, |row| &row.output_digest[..]))
        .bind(of(b, |row| row.attributes.as_deref()))
        .bind(of(b, |row| row.lane_hash))
        .bind(of(b, |row| row.bucket))
        .bind(of(b, |row| row.outbox_event_id))
        .bind(of(b, |row| row.topic_id))
        .bind(of(b, |row| row.kafka_partition))
        .bind(of(b, |row| row.kafka_offset))
        .bind(of(b, |row| &row.topic[..]))
        .bind(of(b, |row| &row.event_type[..]))
        .bind(of(b, |row| &row.content_type[..]))
        .bind(of(b, |row| row.traceparent.as_deref()))
        .bind(of(b, |row| row.tracestate.as_deref()))
        .bind(of(b, |row| row.key.as_deref()))
        .bind(of(b, |row| row.headers.as_deref()))
        .bind(of(b, |row| row.payload.as_deref()))
        .execute(&mut *connection)
        .await?;
    connection.execute("commit").await?;
    Ok(())
}

/// The columns of a row that settle it and carry it to its topic. The first row tells about the read and
/// has no event id.
type ReadRow = (
    i16,
    i64,
    i32,
    Option<Uuid>,
    i32,
    Option<String>,
    Option<Vec<u8>>,
    Option<String>,
    Option<String>,
    Option<Vec<u8>>,
);

async fn read_and_settle(reader: &mut PgConnection, settler: &mut PgConnection) -> anyhow::Result<usize> {
    let buckets: Vec<i16> = (0..64).collect();
    let mut bounds = vec![0_i64; buckets.len()];
    let mut settled = 0;
    loop {
        let rows: Vec<ReadRow> = sqlx::query_as(READ)
            .bind(&buckets)
            .bind(vec![0_i64; buckets.len()]) // epochs: nobody took a lease here
            .bind(&bounds)
            .bind(vec![0_i64; buckets.len()])
            .bind(vec![READ_ROWS; buckets.len()])
            .bind(Vec::<i64>::new())
            .bind(Vec::<i64>::new())
            .bind(false) // no sweep
            .fetch_all(&mut *reader)
            .await?;
        let rows = &rows[1..];
        if rows.is_empty() {
            return Ok(settled);
        }
        for row in rows {
            bounds[row.0.unsigned_abs() as usize] = row.1; // ascending within a bucket
        }
        for chunk in rows.chunks(SETTLE_ROWS) {
            sqlx::query(SETTLE)
                .bind(chunk.iter().map(|row| row.0).collect::<Vec<_>>())
                .bind(chunk.iter().map(|row| row.1).collect::<Vec<_>>())
                .bind(chunk.iter().map(|row| row.3).collect::<Vec<_>>())
                .bind(chunk.iter().map(|row| row.1).min())
                .bind(chunk.iter().map(|row| row.1).max())
                .execute(&mut *settler)
                .await?;
        }
        settled += rows.len();
    }
}
