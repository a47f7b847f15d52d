//! What is printed when something does not come: where it waits, and what everybody says of it.

use harness::Database;
use sqlx::Connection;

use crate::crew::Crew;

/// Rows that are told.
const ROWS_TOLD: i64 = 20;

/// Prints which rows wait, who owns them, and what the services say of themselves.
pub(crate) async fn tell(database: &Database, crew: &Crew) {
    let rows = waiting(database).await;
    for line in rows.unwrap_or_else(|error| vec![format!("{error:#}")]) {
        println!("       {line}");
    }
    for line in crew.states().await {
        println!("       {line}");
    }
}

async fn waiting(database: &Database) -> anyhow::Result<Vec<String>> {
    let mut connection = database.connect().await?;
    let lines = sqlx::query_scalar(
        "select format('row %s of %s, bucket %s, lane %s, attempts %s, made at %s by %s; its bucket belongs to %s \
                        until %s in epoch %s, low id %s', e.id, e.topic, e.bucket, e.lane, e.publish_attempts, \
                       e.created_at, e.inserted_xid, l.lock_owner, l.locked_until, l.epoch, l.low_id) \
           from outbox_events e join outbox_leases l using (bucket) where e.status = 'PENDING' \
          order by e.bucket, e.id limit $1",
    )
    .bind(ROWS_TOLD)
    .fetch_all(&mut connection)
    .await?;
    connection.close().await?;
    Ok(lines)
}
