//! The conformance suite of the intake's store on Postgres.

use std::sync::Arc;
use std::time::Duration;

use harness::{Database, Stack};
use shared::config::DatabaseSettings;
use shared::postgres::Session;
use simulation::inbox::{self, Subject, TOPIC};
use sqlx::{AssertSqlSafe, Connection};
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
        let others = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() \
                      and backend_type = 'client backend' and xact_start is not null";
        let end = format!("select count(pg_terminate_backend(pid)) {others}");
        let count = format!("select count(*) {others}");
        sqlx::raw_sql(AssertSqlSafe(end))
            .execute(&mut connection)
            .await
            .expect("a session can be ended");
        loop {
            let left: i64 = sqlx::query_scalar(AssertSqlSafe(count.clone()))
                .fetch_one(&mut connection)
                .await
                .expect("sessions can be counted");
            if left == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
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

macro_rules! on_postgres {
    ($($case:ident)+) => {
        $(#[tokio::test]
        async fn $case() -> anyhow::Result<()> {
            let store = OnPostgres::new(stringify!($case)).await?;
            inbox::$case(&store).await;
            let OnPostgres { database, inbox } = store;
            drop(inbox);
            Stack::shared().await?.drop_database(&database).await
        })+
    };
}

simulation::inbox_cases!(on_postgres);
