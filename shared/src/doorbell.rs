//! Tells the publishers that there is something new, after the commit and beside it.
//!
//! A `NOTIFY` inside the writing transaction would hold a lock of the whole cluster through its commit.
//! The doorbell sends it on a connection of its own, at most every few milliseconds, and nobody waits
//! for it. A lost ring costs a publisher's poll interval, never an event.

use std::sync::Arc;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The channel on which publishers listen.
pub const CHANNEL: &str = "outbox_doorbell";

/// No more than one ring in this time per doorbell.
const PAUSE: Duration = Duration::from_millis(3);
/// After a failure the doorbell is silent for this long; the publishers' polling goes on meanwhile.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Rings the publishers' doorbell. Clones share one connection, which closes with the last of them.
#[derive(Debug, Clone)]
pub struct Doorbell {
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Bell {
    wanted: Arc<Notify>,
    task: tokio::task::AbortHandle,
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Doorbell {
    /// A doorbell with a connection of its own, made when it is first rung.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(options: PgConnectOptions) -> Self {
        let wanted = Arc::new(Notify::new());
        let task = tokio::spawn(answer(options, Arc::clone(&wanted))).abort_handle();
        Self {
            bell: Arc::new(Bell { wanted, task }),
        }
    }

    /// Rings. Call it after the commit. Returns at once; rings close together become one.
    pub fn ring(&self) {
        self.bell.wanted.notify_one();
    }
}

async fn answer(options: PgConnectOptions, wanted: Arc<Notify>) {
    let mut connection = None;
    let mut not_before = Instant::now();
    loop {
        wanted.notified().await;
        sleep_until(not_before).await;
        let rung = async {
            let open = match connection.take() {
                Some(open) => open,
                None => options.connect().await?,
            };
            let mut open = open;
            // Nothing is lost when the server forgets a ring in a crash, so nobody waits for its disk.
            sqlx::query("select set_config('synchronous_commit', 'off', false), pg_notify($1, '')")
                .bind(CHANNEL)
                .execute(&mut open)
                .await?;
            Ok::<_, sqlx::Error>(open)
        };
        match rung.await {
            Ok(open) => {
                connection = Some(open);
                not_before = Instant::now() + PAUSE;
            }
            Err(error) => {
                tracing::debug!(error = %error, "doorbell not rung; publishers find the events at their next poll");
                not_before = Instant::now() + PAUSE_AFTER_FAILURE;
            }
        }
    }
}
