//! The least that the rows of decided events can cost in write-ahead log: each inserted once with one index entry, and
//! the outbox row updated once, on its page.

use anyhow::Context;
use harness::Database;
use sqlx::{AssertSqlSafe, Connection};

/// The rows of one table, as they were when they were written: into a plain table, in one transaction.
struct Copied {
    table: &'static str,
    key: &'static str,
    room: &'static str,
    then: &'static str,
}

const TABLES: [Copied; 3] = [
    Copied {
        table: "processed_events",
        key: "event_id, consumer_id, claim_day",
        room: "",
        then: "",
    },
    Copied {
        table: "decisions",
        key: "decision_id, decided_on",
        room: "",
        then: "",
    },
    Copied {
        table: "outbox_events",
        key: "bucket, id",
        room: "with (fillfactor = 46)",
        // A settled row, before it was settled; and then settled.
        then: "update least_outbox_events set status = 'PUBLISHED', published_at = clock_timestamp()",
    },
];

/// Bytes of log for each of `rows` events that a database holds, decided and published.
///
/// # Errors
/// If the server refuses something.
pub async fn log_bytes(database: &Database, rows: u64) -> anyhow::Result<f64> {
    let mut connection = database.connect().await?;
    let mut bytes = 0.0;
    for copied in TABLES {
        let Copied { table, key, room, then } = copied;
        let make = format!("create table least_{table} (like {table}, primary key ({key})) {room}");
        sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut connection).await?;
        let columns: Vec<String> = sqlx::query_scalar(
            "select case when attname in ('status', 'published_at')
                         then case attname when 'status' then '''PENDING''' else 'null' end
                         else quote_ident(attname) end
               from pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped order by attnum",
        )
        .bind(table)
        .fetch_all(&mut connection)
        .await?;
        let fill = format!("insert into least_{table} select {} from {table}", columns.join(", "));
        for statement in [fill.as_str(), then].into_iter().filter(|text| !text.is_empty()) {
            let before = written(&mut connection).await?;
            sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
                .execute(&mut connection)
                .await
                .context("copy the rows")?;
            bytes += written(&mut connection).await? - before;
        }
    }
    connection.close().await?;
    Ok(bytes / rows as f64)
}

async fn written(connection: &mut sqlx::PgConnection) -> anyhow::Result<f64> {
    Ok(
        sqlx::query_scalar("select (pg_current_wal_insert_lsn() - '0/0')::float8")
            .fetch_one(connection)
            .await?,
    )
}
