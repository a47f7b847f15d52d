//! The conformance suite of the intake's store on Postgres.

use std::sync::Arc;
use std::time::Duration;

use harness::{Database, Stack};
use shared::config::DatabaseSettings;
use shared::postgres::Session;
use simulation::inbox::{Subject, TOPIC, cases};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use triage_service::domain::outcome::OutboxEvent;
use triage_service::postgres::{InboxOptions, PgInbox};

/// A statement that has not been answered by then waits for another transaction.
const PATIENCE: Duration = Duration::from_millis(300);

struct OnPostgres {
    database: Database,
    inbox: PgInbox,
}

impl OnPostgres {
    async fn new(test: &str) -> anyhow::Result<Self> {
        let database = Stack::shared().await?.database(test).await?;
        let options = InboxOptions {
            connect: database.url.parse()?,
            session: Session::new(&DatabaseSettings::default()).indexed(),
            connect_timeout: Duration::from_secs(10),
            confirm_duplicates: true,
        };
        let inbox = PgInbox::open(options, "triage", &Arc::from(TOPIC)).await?;
        Ok(Self { database, inbox })
    }
}

impl Subject for OnPostgres {
    type Inbox = PgInbox;

    fn worker(&self) -> PgInbox {
        self.inbox.clone()
    }

    async fn waits(&self, statement: impl Future + Unpin) -> bool {
        tokio::time::timeout(PATIENCE, statement).await.is_err()
    }

    fn spoilt(&self, row: OutboxEvent) -> OutboxEvent {
        OutboxEvent {
            topic: "t".repeat(250), // longer than Kafka's names may be
            ..row
        }
    }

    async fn cut(&self) {
        let mut connection = self.database.connect().await.expect("the server is there");
        // Who waits goes first: it would have what it waits for as soon as the others are gone.
        for waits_or_not in ["and wait_event_type = 'Lock'", ""] {
            end_transactions(&mut connection, waits_or_not).await;
        }
        connection.close().await.expect("a connection can be closed");
    }

    async fn appended(&self) -> Vec<i64> {
        let mut connection = self.database.connect().await.expect("the server is there");
        let offsets = sqlx::query_scalar("select source_offset from outbox_events order by id")
            .fetch_all(&mut connection)
            .await
            .expect("rows can be read");
        connection.close().await.expect("a connection can be closed");
        offsets
    }
}

/// Ends the sessions in a transaction that meet the condition, and returns when they are gone.
async fn end_transactions(connection: &mut PgConnection, condition: &str) {
    // First those, then their end: in one condition the server might end sessions that others of it exclude.
    let end = format!(
        "with those as materialized (select pid from pg_stat_activity where datname = current_database() \
             and pid <> pg_backend_pid() and backend_type = 'client backend' and xact_start is not null {condition}) \
         select pid from those where pg_terminate_backend(pid)"
    );
    let ended: Vec<i32> = sqlx::query_scalar(AssertSqlSafe(end))
        .fetch_all(&mut *connection)
        .await
        .expect("a session can be ended");
    loop {
        let left: i64 = sqlx::query_scalar("select count(*) from pg_stat_activity where pid = any($1)")
            .bind(&ended)
            .fetch_one(&mut *connection)
            .await
            .expect("sessions can be counted");
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

macro_rules! on_postgres {
    ($($case:ident)+) => {
        $(#[tokio::test]
        async fn $case() -> anyhow::Result<()> {
            let store = OnPostgres::new(stringify!($case)).await?;
            cases::$case(&store).await;
            let OnPostgres { database, inbox } = store;
            drop(inbox);
            Stack::shared().await?.drop_database(&database).await
        })+
    };
}

simulation::inbox_cases!(on_postgres);
