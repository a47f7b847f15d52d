//! An outbox of a test's own, and writers whose transactions stay open as long as the test wants.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use harness::kafka::KafkaOptions;
use harness::postgres::Postgres;
use harness::stack::Choice;
use harness::{Database, Stack, StackKind};
use outbox_publisher::postgres::PostgresStore;
use shared::postgres::Session;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// The topic of every event here.
pub(crate) const TOPIC: &str = "t";

/// A migrated database, and the server under it.
pub(crate) struct Outbox {
    database: Database,
    server: Server,
}

enum Server {
    Shared,
    Own(Arc<Stack>),
}

impl Outbox {
    /// A database on the server that these scenarios share.
    pub(crate) async fn new(test: &str) -> anyhow::Result<Self> {
        let database = shared_server().await?.database(test).await?;
        Ok(Self {
            database,
            server: Server::Shared,
        })
    }

    /// A database on a server of its own: for tests that crash it, and for those in which no
    /// transaction but theirs may complete, since snapshots are of the whole server.
    pub(crate) async fn alone(test: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let choice = Choice {
            kind: StackKind::Embedded,
            reason: "a server of the test's own".to_owned(),
        };
        let mut settings = settings.to_vec();
        settings.push(("autovacuum", "off"));
        let stack = Stack::start_chosen(choice, test, &KafkaOptions::default(), &settings).await?;
        let database = stack.database(test).await?;
        Ok(Self {
            database,
            server: Server::Own(Arc::new(stack)),
        })
    }

    /// Another database of the same server.
    pub(crate) async fn another(&self, test: &str) -> anyhow::Result<Self> {
        match &self.server {
            Server::Shared => Self::new(test).await,
            Server::Own(stack) => Ok(Self {
                database: stack.database(test).await?,
                server: Server::Own(Arc::clone(stack)),
            }),
        }
    }

    /// The server, where it is the test's own.
    pub(crate) fn postgres(&self) -> &Postgres {
        match &self.server {
            Server::Own(stack) => stack.postgres().expect("an embedded stack has its own server"),
            Server::Shared => panic!("this outbox stands on a shared server"),
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.database.url
    }

    pub(crate) fn options(&self) -> PgConnectOptions {
        self.database.url.parse().expect("an address")
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<PgConnection> {
        self.database.connect().await
    }

    /// The store of a new instance.
    pub(crate) fn store(&self) -> PostgresStore {
        store(&self.options())
    }

    /// A writer with a connection of its own.
    pub(crate) async fn writer(&self) -> anyhow::Result<Writer> {
        Ok(Writer {
            connection: self.connect().await?,
        })
    }

    /// Makes all leaves anew, of `rows` ids each.
    pub(crate) async fn small_leaves(&self, rows: i64, ahead: i32) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        let leaves: Vec<String> = sqlx::query_scalar(
            "select inhrelid::regclass::text from pg_inherits where inhparent = 'outbox_events'::regclass",
        )
        .fetch_all(&mut connection)
        .await?;
        for leaf in leaves {
            sqlx::query(AssertSqlSafe(format!("drop table {leaf}")))
                .execute(&mut connection)
                .await?;
        }
        sqlx::query("delete from outbox_leaves")
            .execute(&mut connection)
            .await?;
        sqlx::query("select outbox_make_leaves($1, $2)")
            .bind(rows)
            .bind(ahead)
            .execute(&mut connection)
            .await?;
        Ok(connection.close().await?)
    }

    /// The next id drawn is this one.
    pub(crate) async fn next_id_is(&self, id: i64) -> anyhow::Result<()> {
        self.run("select setval('outbox_events_id_seq', $1, false)", id).await
    }

    /// Every owner has been silent for long: leases have run out, nobody is counted.
    pub(crate) async fn owners_are_gone(&self) -> anyhow::Result<()> {
        let mut writer = self.writer().await?;
        writer
            .plain("update outbox_leases set locked_until = '-infinity'; delete from outbox_instances")
            .await
    }

    /// A number that a query gives.
    pub(crate) async fn number(&self, query: &'static str) -> anyhow::Result<i64> {
        let mut connection = self.connect().await?;
        let number = sqlx::query_scalar(query).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(number)
    }

    /// Runs a statement with one number.
    pub(crate) async fn run(&self, statement: &'static str, number: i64) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        sqlx::query(statement)
            .bind(number)
            .execute(&mut connection)
            .await
            .context(statement)?;
        Ok(connection.close().await?)
    }

    /// How the rows stand: label, lane and status, in id order; the archive is left out.
    pub(crate) async fn rows(&self) -> anyhow::Result<Vec<String>> {
        let mut connection = self.connect().await?;
        let rows = sqlx::query_scalar(
            "select format('%s %s %s', convert_from(payload, 'UTF8'), lane, status) from outbox_events order by id",
        )
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        Ok(rows)
    }

    /// Ends the test: nothing is left PENDING, and the database goes unless the test has failed.
    pub(crate) async fn finish(self) -> anyhow::Result<()> {
        let pending = self
            .number("select count(*) from outbox_events where status = 'PENDING'")
            .await?;
        anyhow::ensure!(
            pending == 0,
            "{pending} rows are still PENDING: {:?}",
            self.rows().await?
        );
        self.remove().await
    }

    /// Ends a test that leaves rows behind.
    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        match &self.server {
            Server::Shared => shared_server().await?.drop_database(&self.database).await,
            Server::Own(stack) => stack.drop_database(&self.database).await,
        }
    }
}

/// The store of a new instance at an address.
pub(crate) fn store(options: &PgConnectOptions) -> PostgresStore {
    PostgresStore::new(
        options,
        Session::default(),
        Duration::from_secs(5),
        Uuid::now_v7(),
        "test".to_owned(),
    )
}

/// Postgres alone is needed here, so a stack without Kafka does, unless addresses are given.
async fn shared_server() -> anyhow::Result<&'static Stack> {
    static SERVER: OnceCell<Stack> = OnceCell::const_new();
    let choice = Choice::from_environment()?;
    if choice.kind == StackKind::Env {
        return Stack::shared().await;
    }
    let choice = Choice {
        kind: StackKind::Embedded,
        reason: "no Kafka is needed".to_owned(),
    };
    // A commit that waits for this machine's disk tells nothing about order; crashes have servers of their own.
    let settings = [("fsync", "off"), ("max_connections", "300")];
    SERVER
        .get_or_try_init(|| async { Stack::start_chosen(choice, "outbox", &KafkaOptions::default(), &settings).await })
        .await
}

/// A library user: one connection, one transaction at a time.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) connection: PgConnection,
}

impl Writer {
    pub(crate) async fn begin(&mut self) -> anyhow::Result<()> {
        self.plain("begin").await
    }

    /// Begins, and takes an xid as any other write would.
    pub(crate) async fn begin_with_xid(&mut self) -> anyhow::Result<()> {
        self.begin().await?;
        self.plain("select pg_current_xact_id()").await
    }

    pub(crate) async fn commit(&mut self) -> anyhow::Result<()> {
        self.plain("commit").await
    }

    /// Inserts an event in plain SQL; its id. `label` is its payload.
    pub(crate) async fn insert(&mut self, key: &str, label: &str) -> anyhow::Result<i64> {
        sqlx::query_scalar("select outbox_enqueue($1, $2, 'x', $3)")
            .bind(TOPIC)
            .bind(key.as_bytes())
            .bind(label.as_bytes())
            .fetch_one(&mut self.connection)
            .await
            .context("insert an event")
    }

    pub(crate) async fn plain(&mut self, statement: &'static str) -> anyhow::Result<()> {
        sqlx::raw_sql(statement)
            .execute(&mut self.connection)
            .await
            .context(statement)?;
        Ok(())
    }
}

/// Two keys of one bucket and one of another.
pub(crate) struct Keys {
    pub(crate) one: String,
    pub(crate) beside: String,
    pub(crate) elsewhere: String,
}

impl Keys {
    pub(crate) fn find() -> Self {
        let bucket = |key: &str| shared::hash::bucket_of(Some(key.as_bytes()), Uuid::nil());
        let one = "K".to_owned();
        let named = |is_same: bool| {
            (0..)
                .map(|n| format!("L{n}"))
                .find(|key| (bucket(key) == bucket(&one)) == is_same)
                .expect("keys are endless")
        };
        Self {
            beside: named(true),
            elsewhere: named(false),
            one,
        }
    }
}
