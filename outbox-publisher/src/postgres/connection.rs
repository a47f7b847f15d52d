//! A connection for one kind of statement, opened when it is needed and dropped when it is lost.

use std::time::Duration;

use rand::Rng;
use shared::postgres::{self, Session};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::sync::{Mutex, MutexGuard};

use crate::ports::StoreError;

/// Between attempts to connect, jittered: instances that lost the server together return apart.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// One connection behind a lock: statements of a kind take turns.
#[derive(Debug)]
pub(super) struct Slot {
    options: PgConnectOptions,
    session: Session,
    connect_timeout: Duration,
    connection: Mutex<Option<PgConnection>>,
}

/// A connection in use. What is not given back by [`InUse::settle`] is dropped: its state is not known.
pub(super) struct InUse<'a> {
    slot: MutexGuard<'a, Option<PgConnection>>,
    connection: PgConnection,
}

impl Slot {
    pub(super) fn new(options: PgConnectOptions, session: Session, connect_timeout: Duration) -> Self {
        Self {
            options,
            session,
            connect_timeout,
            connection: Mutex::new(None),
        }
    }

    pub(super) async fn open(&self) -> Result<InUse<'_>, StoreError> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.take() {
            return Ok(InUse { slot, connection });
        }
        let opened = tokio::time::timeout(self.connect_timeout, postgres::connect(&self.options, &self.session)).await;
        match opened {
            Ok(Ok(connection)) => Ok(InUse { slot, connection }),
            Ok(Err(error)) => Err(self.not_opened(error.into()).await),
            Err(elapsed) => Err(self.not_opened(elapsed.into()).await),
        }
    }

    async fn not_opened(&self, error: anyhow::Error) -> StoreError {
        let jitter: f64 = rand::rng().random_range(0.5..=1.5);
        tokio::time::sleep(RECONNECT_PAUSE.mul_f64(jitter)).await;
        StoreError::Lost(error)
    }
}

impl InUse<'_> {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Ends the use: a connection that is still well is kept, and the error told apart.
    pub(super) fn settle<T>(mut self, result: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        match result {
            Ok(value) => {
                *self.slot = Some(self.connection);
                Ok(value)
            }
            Err(error) if postgres::is_connection_lost(&error) => Err(StoreError::Lost(error.into())),
            Err(error) => {
                *self.slot = Some(self.connection);
                Err(StoreError::Refused(error.into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use shared::config::DatabaseSettings;

    use super::*;

    #[tokio::test]
    async fn pauses_between_attempts_to_connect_differ() {
        // given: nothing listens there
        let options = "postgres://nobody@127.0.0.1:1/none".parse().expect("an address");
        let session = Session::new(&DatabaseSettings::default());
        let slots = (0..40).map(|_| Slot::new(PgConnectOptions::clone(&options), session, Duration::from_secs(10)));
        let slots: Vec<Slot> = slots.collect();

        // when: forty instances lose the server together
        let began = Instant::now();
        let attempts = slots.iter().map(async |slot| {
            assert!(matches!(slot.open().await, Err(StoreError::Lost(_))));
            began.elapsed()
        });
        let returned = futures_util::future::join_all(attempts).await;

        // then: they do not return together
        let (first, last) = (returned.iter().min(), returned.iter().max());
        let apart = *last.expect("forty") - *first.expect("forty");
        assert!(apart > RECONNECT_PAUSE / 4, "all within {apart:?}");
    }
}
