//! The publisher that holds the locks of its rows in an open transaction while it publishes them. Tuned as the one that
//! leases rows. Its transaction is open for as long as the broker takes.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};

use super::row_lease::{Row, publish};
use super::sender::Sender;
use super::{Task, tell, wait_for_the_start};

const LOCK: &str = "select id, event_id, key, payload, event_type from leased_rows
  where status = 'PENDING' order by id limit $1 for update skip locked";

const SETTLE: &str = "update leased_rows set status = 'PUBLISHED', published_at = now() where id = any ($1)";

pub(super) async fn run(task: &Task) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(&task.database).await?;
    connection
        .execute("set synchronous_commit = off; set jit = off")
        .await?;
    let mut sender = Sender::new(&task.brokers, &task.topic, 0)?;
    let began = wait_for_the_start()?;
    let mut settled = 0;
    loop {
        let mut transaction = connection.begin().await?;
        let rows: Vec<Row> = sqlx::query_as(LOCK)
            .bind(task.batch as i64)
            .fetch_all(&mut *transaction)
            .await?;
        if rows.is_empty() {
            break;
        }
        settled += sqlx::query(SETTLE)
            .bind(publish(&mut sender, &rows)?)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        transaction.commit().await?;
    }
    tell(settled, began)
}
