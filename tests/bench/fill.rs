//! What is there before a drain begins: rows of an outbox.

use anyhow::Context;
use harness::Database;
use sqlx::{AssertSqlSafe, Connection};

/// Keys of the rows, one after the other.
const KEYS: u32 = 1_000;

/// A payload of 300 bytes, half of which could be compressed away, as SQL of its number `i`.
const PAYLOAD: &str = "convert_to('{\"number\":' || lpad(i::text, 12, '0') || ',\"text\":\"' \
    || encode(sha512(int8send(i)), 'hex') || encode(sha512(int8send(-i)), 'hex') || '\"}', 'UTF8')";

/// Rows that wait in the outbox, as the library writes them.
///
/// # Errors
/// If the server refuses them.
pub async fn outbox(database: &Database, topic: &str, rows: u64) -> anyhow::Result<()> {
    run(
        database,
        format!(
            "create temp table keys as
               select n, k as key, outbox_bucket(k, '00000000-0000-0000-0000-000000000000') as bucket,
                      outbox_lane_hash('{topic}', k, '00000000-0000-0000-0000-000000000000') as lane_hash
                 from (select n, convert_to('customer-' || n, 'UTF8') as k from generate_series(0, {KEYS} - 1) n) numbered;
             analyze keys;
             insert into outbox_events (lane_hash, bucket, event_id, is_ordered, topic, event_type, key, payload)
             select lane_hash, bucket, gen_random_uuid(), true, '{topic}', 'bench.row-written', key, payload
               from (select k.lane_hash, k.bucket, k.key, {PAYLOAD} as payload, i
                       from generate_series(1::bigint, {rows}) i join keys k on k.n = i % {KEYS}) filled
              order by i;
             drop table keys"
        ),
    )
    .await
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

async fn run(database: &Database, sql: String) -> anyhow::Result<()> {
    let mut connection = database.connect().await?;
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await
        .context("fill the outbox")?;
    connection.close().await?;
    Ok(())
}
