//! What is there before a round begins: rows of an outbox, records of an input topic.

use anyhow::Context;
use harness::Database;
use sqlx::AssertSqlSafe;

/// Whose events they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Keys {
    /// So many keys, one after the other.
    Uniform(u32),
    /// Half of the rows belong to one key, the rest to a thousand.
    OneHalf,
    /// A thousand keys by Zipf's law with exponent 1.1.
    Zipf,
}

/// The number of a row's key, of keys that are numbered from 0, as SQL of its number `i`.
fn key_of(keys: Keys) -> String {
    match keys {
        Keys::Uniform(count) => format!("i % {count}"),
        Keys::OneHalf => "case when i % 2 = 0 then 0 else i % 1000 end".to_owned(),
        // The inverse of the law's distribution function, continuous where the law is not.
        Keys::Zipf => {
            "least(999, floor(power(1 - (i * 0.6180339887498949 % 1) * (1 - power(1000.0, -0.1)), -10)) - 1)::int"
                .to_owned()
        }
    }
}

/// A payload of 300 bytes, half of which could be compressed away, as SQL of its number `i`.
const PAYLOAD: &str = "convert_to('{\"number\":' || lpad(i::text, 12, '0') || ',\"text\":\"' \
    || encode(sha512(int8send(i)), 'hex') || encode(sha512(int8send(-i)), 'hex') || '\"}', 'UTF8')";

/// Rows that wait in the outbox, as the library writes them.
///
/// # Errors
/// If the server refuses them.
pub async fn outbox(database: &Database, topic: &str, rows: u64, keys: Keys) -> anyhow::Result<()> {
    let key = key_of(keys);
    run(
        database,
        format!(
            "create temp table keys as
               select n, k as key, outbox_bucket(k, '00000000-0000-0000-0000-000000000000') as bucket,
                      outbox_lane_hash('{topic}', k, '00000000-0000-0000-0000-000000000000') as lane_hash
                 from (select n, convert_to('customer-' || n, 'UTF8') as k from generate_series(0, 9999) n) numbered;
             analyze keys;
             insert into outbox_events (lane_hash, bucket, event_id, is_ordered, topic, event_type, key, payload)
             select lane_hash, bucket, gen_random_uuid(), true, '{topic}', 'bench.row-written', key, payload
               from (select k.lane_hash, k.bucket, k.key, {PAYLOAD} as payload, i
                       from generate_series(1::bigint, {rows}) i join keys k on k.n = {key}) filled
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
pub async fn leased_rows(database: &Database, topic: &str, rows: u64, keys: Keys) -> anyhow::Result<()> {
    let key = key_of(keys);
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
             select gen_random_uuid(), '{topic}', 'bench.row-written', convert_to('customer-' || ({key}), 'UTF8'), {PAYLOAD}
               from generate_series(1::bigint, {rows}) i order by i;
             analyze leased_rows"
        ),
    )
    .await
}

async fn run(database: &Database, sql: String) -> anyhow::Result<()> {
    use sqlx::Connection as _;
    let mut connection = database.connect().await?;
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await
        .context("fill the outbox")?;
    connection.close().await?;
    Ok(())
}
