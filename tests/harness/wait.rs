//! Waiting for a condition on a value, with a deadline and the last state seen in the failure.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::bail;
use sqlx::Connection;

use crate::stack::Database;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What a look has found.
#[derive(Debug)]
pub enum Seen<T> {
    /// The condition holds.
    Yes(T),
    /// It does not hold yet; the text says how things stand.
    NotYet(String),
}

impl<T> Seen<T> {
    /// `Yes` with the value if it fulfils the condition, else how it looks.
    pub fn when(value: T, holds: impl FnOnce(&T) -> bool) -> Self
    where
        T: std::fmt::Debug,
    {
        if holds(&value) {
            Self::Yes(value)
        } else {
            Self::NotYet(format!("{value:?}"))
        }
    }
}

/// Looks again and again until the condition holds, or fails after `within` with the last state seen.
///
/// An error inside a look counts as "not yet", since a server that restarts is away for a while. A look
/// that hangs is given up at the deadline, too.
pub async fn until<T, F>(what: &str, within: Duration, mut look: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Seen<T>>>,
{
    let began = Instant::now();
    let mut last = "nothing was seen".to_owned();
    loop {
        let left = within.saturating_sub(began.elapsed());
        match tokio::time::timeout(left.max(PAUSE), look()).await {
            Ok(Ok(Seen::Yes(value))) => return Ok(value),
            Ok(Ok(Seen::NotYet(state))) => last = state,
            Ok(Err(error)) => last = format!("error: {error:#}"),
            Err(_) => last = format!("the last look did not return; before it: {last}"),
        }
        if began.elapsed() >= within {
            bail!("waited {within:?} for {what}; last seen: {last}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until the group has committed the end of every partition, as `is_consumed` says, and no row is PENDING.
pub async fn until_done<F>(database: &Database, within: Duration, is_consumed: impl Fn() -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<bool>>,
{
    until("the stream to be worked off", within, || async {
        // In this order: a decision between the two looks is still seen.
        if !is_consumed().await? {
            return Ok(Seen::NotYet("records are not committed by the group".to_owned()));
        }
        let mut connection = database.connect().await?;
        let pending: i64 = sqlx::query_scalar("select count(*) from outbox_events where status = 'PENDING'")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok(match pending {
            0 => Seen::Yes(()),
            _ => Seen::NotYet(format!("{pending} rows are PENDING")),
        })
    })
    .await
}
