//! What is there before a drain begins: rows of an outbox.

use anyhow::Context;
use harness::Database;
use sqlx::{AssertSqlSafe, Connection};

/// Keys of the rows.
const KEYS: u32 = 1_000;

/// A payload of 300 bytes, half of which could be compressed away, as SQL of its number `i`.
const PAYLOAD: &str = "convert_to('{\"number\":' || lpad(i::text, 12, '0') || ',\"text\":\"' \
    || encode(sha512(int8send(i)), 'hex') || encode(sha512(int8send(-i)), 'hex') || '\"}', 'UTF8')";

/// How the rows of an outbox spread over keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// A thousand keys, one after the other.
    Even,
    /// The n-th of a thousand keys has a share of 1/n.
    Zipf,
    /// Every second row is of one key.
    HalfIsOne,
}

impl Keys {
    /// The number of a row's key as SQL; `i` is the row.
    fn number(self) -> String {
        match self {
            Self::Even => format!("(i % {KEYS})::int"),
            // The sum of 1/n up to n grows as ln n, so its inverse is an exponential.
            Self::Zipf => format!(
                "least(floor(exp(ln({KEYS} + 1) * (hashint8extended(i, 7) & 1048575) / 1048576.0)) - 1, {KEYS} - 1)::int"
            ),
            Self::HalfIsOne => format!("(case when i % 2 = 0 then 0 else i % {KEYS} end)::int"),
        }
    }
}

/// Rows that wait in the outbox, as the library writes them.
///
/// # Errors
/// If the server refuses them.
pub async fn outbox(database: &Database, topic: &str, rows: u64, keys: Keys) -> anyhow::Result<()> {
    let columns = "lane_hash, bucket, event_id, is_ordered, topic, event_type, key, payload";
    let values = format!("lane_hash, bucket, gen_random_uuid(), true, '{topic}', 'bench.row-written', key, payload");
    run(database, insert(topic, rows, keys, columns, &values)).await
}

/// Rows that were published before, an hour ago: nothing is to be done with them, and the leases say so.
///
/// # Errors
/// If the server refuses them.
pub async fn published(database: &Database, topic: &str, rows: u64) -> anyhow::Result<()> {
    let columns = "lane_hash, bucket, event_id, is_ordered, topic, event_type, key, payload, status, published_at";
    let values = format!(
        "lane_hash, bucket, gen_random_uuid(), true, '{topic}', 'bench.row-written', key, payload, 'PUBLISHED', \
         now() - interval '1 hour'"
    );
    let filled = insert(topic, rows, Keys::Even, columns, &values);
    let low = "update outbox_leases set low_id = coalesce((select max(id) from outbox_events), low_id)";
    run(database, format!("{filled}; {low}")).await
}

/// A row that no broker would take, by its headers, and followers of its key.
///
/// # Errors
/// If the server refuses them.
pub async fn poisoned(database: &Database, topic: &str, followers: u64) -> anyhow::Result<()> {
    run(
        database,
        format!(
            "insert into outbox_events (lane_hash, bucket, event_id, is_ordered, topic, event_type, key, payload, headers)
             select outbox_lane_hash('{topic}', 'poisoned', id), outbox_bucket('poisoned', id), id, true, '{topic}',
                    'bench.row-written', 'poisoned'::bytea, {PAYLOAD}, case when i = 0 then '\\xff'::bytea end
               from (select i, gen_random_uuid() as id from generate_series(0::bigint, {followers}) i) numbered
              order by i"
        ),
    )
    .await
}

fn insert(topic: &str, rows: u64, keys: Keys, columns: &str, values: &str) -> String {
    let number = keys.number();
    format!(
        "create temp table keys as
           select n, k as key, outbox_bucket(k, '00000000-0000-0000-0000-000000000000') as bucket,
                  outbox_lane_hash('{topic}', k, '00000000-0000-0000-0000-000000000000') as lane_hash
             from (select n, convert_to('customer-' || n, 'UTF8') as k from generate_series(0, {KEYS} - 1) n) numbered;
         analyze keys;
         insert into outbox_events ({columns})
         select {values}
           from (select k.lane_hash, k.bucket, k.key, {PAYLOAD} as payload, i
                   from generate_series(1::bigint, {rows}) i join keys k on k.n = {number}) filled
          order by i;
         drop table keys"
    )
}

/// The same rows in the table of the publishers that lease or lock each row.
///
/// # Errors
/// If the server refuses them.
pub async fn leased_rows(database: &Database, topic: &str, rows: u64) -> anyhow::Result<()> {
    // An index as such tables have it; a page has room for the versions, since a claim and a settle make two.
    run(
        database,
        format!(
            "create table leased_rows (
                 id           bigserial   primary key,
                 event_id     uuid        not null,
                 created_at   timestamptz not null default now(),
                 status       text        not null default 'PENDING',
                 attempts     integer     not null default 0,
                 lock_owner   text,
                 locked_until timestamptz,
                 published_at timestamptz,
                 topic        text        not null,
                 event_type   text        not null,
                 key          bytea,
                 payload      bytea
             ) with (fillfactor = 70);
             create index leased_rows_pending on leased_rows (id) where status = 'PENDING';
             insert into leased_rows (event_id, topic, event_type, key, payload)
             select gen_random_uuid(), '{topic}', 'bench.row-written', convert_to('customer-' || i % {KEYS}, 'UTF8'), {PAYLOAD}
               from generate_series(1::bigint, {rows}) i order by i;
             analyze leased_rows"
        ),
    )
    .await
}

/// The tables of the consumer with one transaction a record.
///
/// # Errors
/// If the server refuses them.
pub async fn per_event_tables(database: &Database) -> anyhow::Result<()> {
    let seen = "create table seen_events (event_id uuid primary key, seen_at timestamptz not null default now())";
    run(database, seen.to_owned()).await?;
    leased_rows(database, "outcomes", 0).await
}

/// Claims of events that came before, with random ids, by a consumer of which nothing else is left.
///
/// # Errors
/// If the server refuses them.
pub async fn claims(database: &Database, count: u64) -> anyhow::Result<()> {
    if count == 0 {
        return Ok(());
    }
    run(
        database,
        format!(
            "insert into processed_events (event_id, claim_day, consumer_id, topic_id, kafka_partition, kafka_offset,
                                           processed_at, outcome, payload_digest)
             select gen_random_uuid(), '-infinity', 30000, 1, 0, -i, now() - i * interval '30 days' / {count}, 'DECIDED',
                    substr(sha256(int8send(i)), 1, 16)
               from generate_series(1::bigint, {count}) i"
        ),
    )
    .await?;
    // Claims of a month were vacuumed long ago, and their age is summarized: else the first look for what is past the
    // retention reads all of them.
    run(database, "vacuum (analyze) processed_events_undated".to_owned()).await
}

async fn run(database: &Database, sql: String) -> anyhow::Result<()> {
    let mut connection = database.connect().await?;
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await
        .context("fill the outbox")?;
    connection.close().await?;
    Ok(())
}
