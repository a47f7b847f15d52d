//! The publisher that most have: a lease on each row, a batch published, one statement that settles it. Tuned: the claim
//! is one statement that finds its rows in a partial index and is not planned twice, statements are prepared, neither
//! waits for the disk, and records do not wait for others. It keeps no order where there are several, nor behind a
//! failed row.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use uuid::Uuid;

use super::sender::{Event, Sender};
use super::{Task, tell, wait_for_the_start};

/// Materialized: the planner might run the subquery again and claim more than the limit.
const CLAIM: &str = "with free as materialized (
    select id from leased_rows
     where status = 'PENDING' and (locked_until is null or locked_until < now())
     order by id limit $1 for update skip locked
)
update leased_rows r set lock_owner = $2, locked_until = now() + interval '30 seconds'
  from free where r.id = free.id
returning r.id, r.event_id, r.key, r.payload, r.event_type";

const SETTLE: &str =
    "update leased_rows set status = 'PUBLISHED', published_at = now(), lock_owner = null, locked_until = null
  where id = any ($1) and lock_owner = $2";

pub(super) type Row = (i64, Uuid, Option<Vec<u8>>, Option<Vec<u8>>, String);

pub(super) async fn run(task: &Task) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(&task.database).await?;
    connection
        .execute("set synchronous_commit = off; set jit = off")
        .await?;
    let mut sender = Sender::new(&task.brokers, &task.topic, 0)?;
    let owner = "publisher-1";
    let began = wait_for_the_start()?;
    let mut settled = 0;
    loop {
        let mut rows: Vec<Row> = sqlx::query_as(CLAIM)
            .bind(task.batch as i64)
            .bind(owner)
            .fetch_all(&mut connection)
            .await?;
        if rows.is_empty() {
            break;
        }
        rows.sort_unstable_by_key(|row| row.0);
        settled += sqlx::query(SETTLE)
            .bind(publish(&mut sender, &rows)?)
            .bind(owner)
            .execute(&mut connection)
            .await?
            .rows_affected();
    }
    tell(settled, began)
}

/// Publishes rows and waits for their acknowledgements; their ids, to settle them by.
pub(super) fn publish(sender: &mut Sender, rows: &[Row]) -> anyhow::Result<Vec<i64>> {
    for (id, event_id, key, payload, event_type) in rows {
        let event = Event {
            event_type,
            key: key.as_deref(),
            payload: payload.as_deref(),
        };
        sender.send(*id, *event_id, event)?;
    }
    sender.until_acknowledged()?;
    Ok(rows.iter().map(|row| row.0).collect())
}
