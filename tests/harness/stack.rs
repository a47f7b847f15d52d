//! Which Kafka and which Postgres the tests and the demo stand on: `STACK` of the environment.

mod choice;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tokio::sync::{Mutex, OnceCell};

use crate::kafka::{Kafka, KafkaOptions};
use crate::mock::MockKafka;
use crate::postgres::{self, Postgres};
use crate::topics;

pub use choice::{Ability, Choice, Home, StackKind};
use choice::{BROKERS_VARIABLE, DATABASE_VARIABLE};

/// Kafka and Postgres, running.
#[derive(Debug)]
pub struct Stack {
    choice: Choice,
    postgres: DatabaseServer,
    brokers: Brokers,
    /// The database that tests copy; one copy at a time, since a template may have no sessions.
    template: OnceCell<String>,
    copying: Mutex<()>,
}

#[derive(Debug)]
enum DatabaseServer {
    Ours(Box<Postgres>),
    Given(String),
}

enum Brokers {
    Ours(Kafka),
    Mock(MockKafka),
    Given(String),
}

impl std::fmt::Debug for Brokers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ours(kafka) => kafka.fmt(f),
            Self::Mock(mock) => f.debug_tuple("Mock").field(&mock.bootstrap()).finish(),
            Self::Given(brokers) => f.debug_tuple("Given").field(brokers).finish(),
        }
    }
}

/// A migrated database of one test.
#[derive(Debug, Clone)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// Its address.
    pub url: String,
}

impl Database {
    /// Opens a connection.
    pub async fn connect(&self) -> anyhow::Result<PgConnection> {
        postgres::connect(&self.url).await
    }
}

impl Stack {
    /// The stack of this test binary, started by the first test that asks.
    ///
    /// A test that breaks a server takes one of its own instead ([`Stack::start`], [`Kafka::start_new`]
    /// and [`Postgres::start_new`]): the others are running on this one.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceCell<Stack> = OnceCell::const_new();
        SHARED
            .get_or_try_init(|| async { Self::start("shared", &KafkaOptions::default(), &[]).await })
            .await
    }

    /// Chooses by `STACK`, says what and why, and starts it. `kafka` and `settings` (of Postgres) apply to
    /// servers of our own only.
    pub async fn start(name: &str, kafka: &KafkaOptions, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let choice = Choice::from_environment()?;
        eprintln!("stack: {} ({})", choice.kind.name(), choice.reason);
        Self::start_chosen(choice, name, kafka, settings).await
    }

    /// Starts a stack of the given kind.
    pub async fn start_chosen(
        choice: Choice,
        name: &str,
        kafka: &KafkaOptions,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let postgres_name = format!("{name}-postgres");
        let postgres = async {
            let server = match choice.kind {
                StackKind::Env => return Ok(DatabaseServer::Given(std::env::var(DATABASE_VARIABLE)?)),
                StackKind::Embedded => Postgres::start_new(&postgres_name, settings).await,
                StackKind::Kafka => Postgres::start_in(Home::Processes, &postgres_name, settings).await,
                StackKind::Containers => Postgres::start_in(Home::Containers, &postgres_name, settings).await,
            };
            server.context("start Postgres").map(Box::new).map(DatabaseServer::Ours)
        };
        let kafka_name = format!("{name}-kafka");
        let brokers = async {
            let cluster = match choice.kind {
                StackKind::Env => return Ok(Brokers::Given(std::env::var(BROKERS_VARIABLE)?)),
                StackKind::Embedded => return MockKafka::start(1).map(Brokers::Mock),
                StackKind::Kafka => Kafka::start_in(Home::Processes, &kafka_name, kafka).await,
                StackKind::Containers => Kafka::start_in(Home::Containers, &kafka_name, kafka).await,
            };
            cluster.context("start Kafka").map(Brokers::Ours)
        };
        let (postgres, brokers) = tokio::join!(postgres, brokers);
        Ok(Self {
            choice,
            postgres: postgres?,
            brokers: brokers?,
            template: OnceCell::new(),
            copying: Mutex::new(()),
        })
    }

    /// Which kind was chosen, and why.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// The addresses for `bootstrap.servers`.
    pub fn brokers(&self) -> String {
        match &self.brokers {
            Brokers::Ours(kafka) => kafka.bootstrap(),
            Brokers::Mock(mock) => mock.bootstrap().to_owned(),
            Brokers::Given(brokers) => brokers.clone(),
        }
    }

    /// The Kafka cluster, where it is ours to break.
    pub fn kafka(&self) -> Option<&Kafka> {
        match &self.brokers {
            Brokers::Ours(kafka) => Some(kafka),
            Brokers::Mock(_) | Brokers::Given(_) => None,
        }
    }

    /// The mock cluster, where it is one.
    pub fn mock(&self) -> Option<&MockKafka> {
        match &self.brokers {
            Brokers::Mock(mock) => Some(mock),
            Brokers::Ours(_) | Brokers::Given(_) => None,
        }
    }

    /// The Postgres server, where it is ours to break.
    pub fn postgres(&self) -> Option<&Postgres> {
        match &self.postgres {
            DatabaseServer::Ours(server) => Some(server),
            DatabaseServer::Given(_) => None,
        }
    }

    /// Why this stack cannot show something, or `None` if it can.
    pub fn lacks(&self, ability: Ability) -> Option<&'static str> {
        self.choice.lacks(ability)
    }

    /// Says that `test` is skipped if the stack lacks one of the abilities; true means: return now.
    pub fn skips(&self, test: &str, abilities: &[Ability]) -> bool {
        let reason = abilities.iter().find_map(|ability| self.lacks(*ability));
        if let Some(reason) = reason {
            eprintln!("SKIPPED {test} on STACK={}: {reason}", self.choice.kind.name());
        }
        reason.is_some()
    }

    /// Makes a migrated database for one test: a copy of a template, some 40 ms.
    pub async fn database(&self, test: &str) -> anyhow::Result<Database> {
        let template = self.template.get_or_try_init(|| self.make_template()).await?;
        let name = unique(test);
        let _one_at_a_time = self.copying.lock().await;
        let mut admin = postgres::connect(&self.database_url("postgres")?).await?;
        sqlx::query(AssertSqlSafe(format!(
            r#"create database "{name}" template "{template}""#
        )))
        .execute(&mut admin)
        .await
        .with_context(|| format!("make database {name}"))?;
        admin.close().await?;
        Ok(Database {
            url: self.database_url(&name)?,
            name,
        })
    }

    /// Makes a database without a schema: the services bring it up themselves.
    pub async fn empty_database(&self, label: &str) -> anyhow::Result<Database> {
        let name = unique(label);
        let mut admin = postgres::connect(&self.database_url("postgres")?).await?;
        sqlx::query(AssertSqlSafe(format!(r#"create database "{name}""#)))
            .execute(&mut admin)
            .await
            .with_context(|| format!("make database {name}"))?;
        admin.close().await?;
        Ok(Database {
            url: self.database_url(&name)?,
            name,
        })
    }

    /// Drops a database at a server that outlives us; ours goes with its databases.
    pub async fn drop_database(&self, database: &Database) -> anyhow::Result<()> {
        let mut admin = postgres::connect(&self.database_url("postgres")?).await?;
        sqlx::query(AssertSqlSafe(format!(
            r#"drop database if exists "{}" with (force)"#,
            database.name
        )))
        .execute(&mut admin)
        .await?;
        Ok(admin.close().await?)
    }

    /// Makes a topic for one test and returns its name, which is `label` with something unique behind it.
    pub async fn topic(&self, label: &str, partitions: i32, settings: &[(&str, &str)]) -> anyhow::Result<String> {
        let name = unique(label).replace('_', "-");
        self.create_topic(&name, partitions, settings).await?;
        Ok(name)
    }

    /// Makes a topic of exactly this name and waits until it has leaders.
    pub async fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        match &self.brokers {
            Brokers::Mock(mock) => mock.create_topic(name, partitions),
            Brokers::Ours(kafka) => {
                let replicas = i32::try_from(kafka.nodes().len())?;
                topics::create(&kafka.bootstrap(), name, partitions, replicas, settings).await
            }
            Brokers::Given(brokers) => topics::create(brokers, name, partitions, 1, settings).await,
        }
    }

    fn database_url(&self, name: &str) -> anyhow::Result<String> {
        match &self.postgres {
            DatabaseServer::Ours(server) => Ok(server.url(name)),
            DatabaseServer::Given(url) => with_database(url, name),
        }
    }

    async fn make_template(&self) -> anyhow::Result<String> {
        let name = unique("template");
        let mut admin = postgres::connect(&self.database_url("postgres")?).await?;
        sqlx::query(AssertSqlSafe(format!(r#"create database "{name}""#)))
            .execute(&mut admin)
            .await?;
        admin.close().await?;
        let mut connection = postgres::connect(&self.database_url(&name)?).await?;
        sqlx::migrate!("../migrations")
            .run(&mut connection)
            .await
            .context("migrate the template")?;
        // A copy of an analysed, vacuumed database plans as a grown one does.
        sqlx::query("vacuum analyze").execute(&mut connection).await?;
        connection.close().await?;
        Ok(name)
    }
}

/// `label` with something behind it that neither this run nor another one has used.
pub fn unique(label: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // Postgres cuts names at 63 bytes, and what makes this one unique stands at its end.
    let label = label.get(..30).unwrap_or(label);
    format!("{label}_{:x}_{:x}_{number}", since_1970.as_millis(), std::process::id())
}

/// The address with another database in its path.
fn with_database(url: &str, name: &str) -> anyhow::Result<String> {
    let (address, parameters) = url.split_once('?').map_or((url, None), |(a, p)| (a, Some(p)));
    let (scheme, rest) = address
        .split_once("://")
        .context("a database address begins with postgres://")?;
    let host = rest.split('/').next().unwrap_or(rest);
    let parameters = parameters.map(|p| format!("?{p}")).unwrap_or_default();
    Ok(format!("{scheme}://{host}/{name}{parameters}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_everything_but_its_database() {
        assert_eq!(
            with_database("postgres://u:p@h:1/x?sslmode=disable", "y").unwrap(),
            "postgres://u:p@h:1/y?sslmode=disable"
        );
        assert_eq!(with_database("postgres://h", "y").unwrap(), "postgres://h/y");
    }
}
