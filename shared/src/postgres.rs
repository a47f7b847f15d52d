//! Connections to Postgres: how they are opened, the schema they find, and what an error means.

mod errors;
mod schema;

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};

use crate::config::DatabaseSettings;

pub use errors::{Trouble, certainly_not_committed, classify, is_connection_lost};
pub use schema::{SchemaError, check_schema, migrate, prepare_schema};

/// What a connection is for, and how long the server may let it wait.
///
/// The settings stand here and on the service's role: a pooler loses those of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Keeps statements on their index while a leaf is still empty and its statistics say "scan".
    pub indexed: bool,
    /// Plans each statement for its own values. A kept plan names every leaf, and running it waits for whoever locks
    /// any of them; one for its values names the leaves that these are in.
    pub replanned: bool,
    /// Commits without waiting for the disk. Only where losing the commit costs a duplicate, never a row.
    pub async_commit: bool,
    /// How long opening the connection may take.
    pub connect_timeout: Duration,
    /// How long a statement waits for a lock.
    pub lock_timeout: Duration,
    /// After which the server ends a transaction whose owner stalled, so that its successor stops waiting.
    pub idle_in_transaction_timeout: Duration,
    /// How often the server looks whether the client of a running statement is still there.
    pub connection_check_interval: Duration,
}

impl Default for Session {
    fn default() -> Self {
        Self::new(&DatabaseSettings::default())
    }
}

impl Session {
    /// A plain session with the configured bounds.
    pub fn new(settings: &DatabaseSettings) -> Self {
        Self {
            indexed: false,
            replanned: false,
            async_commit: false,
            connect_timeout: Duration::from_millis(settings.connect_timeout_ms),
            lock_timeout: Duration::from_millis(settings.lock_timeout_ms),
            idle_in_transaction_timeout: Duration::from_millis(settings.idle_in_transaction_timeout_ms),
            connection_check_interval: Duration::from_millis(settings.connection_check_interval_ms),
        }
    }

    /// The same, kept on its indexes.
    pub const fn indexed(mut self) -> Self {
        self.indexed = true;
        self
    }

    /// The same, with a plan for the values of each statement.
    pub const fn replanned(mut self) -> Self {
        self.replanned = true;
        self
    }

    /// The same, committing asynchronously.
    pub const fn async_commit(mut self) -> Self {
        self.async_commit = true;
        self
    }

    fn parameters(&self) -> Vec<(&'static str, String)> {
        let millis = |duration: Duration| format!("{}ms", duration.as_millis());
        let mut parameters = vec![
            ("jit", "off".to_owned()), // compiling one large statement took longer than running it
            ("lock_timeout", millis(self.lock_timeout)),
            (
                "idle_in_transaction_session_timeout",
                millis(self.idle_in_transaction_timeout),
            ),
            (
                "client_connection_check_interval",
                millis(self.connection_check_interval),
            ),
            // A client whose machine is gone sends no FIN; its claims would wait for hours.
            ("tcp_keepalives_idle", "10".to_owned()),
            ("tcp_keepalives_interval", "5".to_owned()),
            ("tcp_keepalives_count", "3".to_owned()),
        ];
        if self.indexed {
            for plan in [
                "enable_seqscan",
                "enable_bitmapscan",
                "enable_hashjoin",
                "enable_mergejoin",
            ] {
                parameters.push((plan, "off".to_owned()));
            }
        }
        if self.replanned {
            parameters.push(("plan_cache_mode", "force_custom_plan".to_owned()));
        } else if self.indexed {
            parameters.push(("plan_cache_mode", "force_generic_plan".to_owned()));
        }
        if self.async_commit {
            parameters.push(("synchronous_commit", "off".to_owned()));
        }
        parameters
    }
}

/// Where and as whom to connect. `application_name` is what `pg_stat_activity` shows.
pub fn connect_options(settings: &DatabaseSettings, application_name: &str) -> Result<PgConnectOptions, sqlx::Error> {
    options(settings.url.expose(), application_name)
}

fn options(url: &str, application_name: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let options = PgConnectOptions::from_str(url)?.application_name(application_name);
    // Statements carry payloads as parameters; sqlx's own statement log is left to its callers' spans.
    Ok(options.disable_statement_logging())
}

/// Opens a connection and gives it the session's settings.
pub async fn connect(options: &PgConnectOptions, session: &Session) -> Result<PgConnection, sqlx::Error> {
    let opened = async {
        let mut connection = PgConnection::connect_with(options).await?;
        self::session(&mut connection, *session).await?;
        Ok(connection)
    };
    // A host that swallows packets would keep us waiting for minutes.
    tokio::time::timeout(session.connect_timeout, opened)
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
}

/// Gives an open connection the session's settings.
pub async fn session(connection: &mut PgConnection, session: Session) -> Result<(), sqlx::Error> {
    let (names, values): (Vec<&str>, Vec<String>) = session.parameters().into_iter().unzip();
    sqlx::query("select set_config(name, value, false) from unnest($1::text[], $2::text[]) as s (name, value)")
        .bind(names)
        .bind(values)
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_never_answers_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("port 0 is free");
        let address = listener.local_addr().expect("bound");
        let settings = DatabaseSettings {
            url: format!("postgres://me@{address}/db").as_str().into(),
            connect_timeout_ms: 20,
            ..DatabaseSettings::default()
        };
        let options = connect_options(&settings, "test").expect("an address");
        let error = connect(&options, &Session::new(&settings))
            .await
            .expect_err("nobody answers");
        assert!(is_connection_lost(&error), "{error}");
    }
}
