//! Where a run takes place: a broker and a server set up as they are in production.

use std::str::FromStr;

use anyhow::Context;
use harness::kafka::KafkaOptions;
use harness::{Database, Service, Stack, topics};
use sqlx::PgConnection;
use tokio::sync::Mutex;

use crate::cpu;

/// Partitions of each topic.
pub const PARTITIONS: i32 = 12;

/// A production server of this size has more memory than tests give it, and checkpoints that are not ours to time:
/// one in the middle of a round would cost that round alone full pages in the log.
const POSTGRES: [(&str, &str); 8] = [
    ("shared_buffers", "2GB"),
    ("max_wal_size", "16GB"),
    ("checkpoint_timeout", "1h"),
    ("wal_compression", "lz4"),
    ("shared_preload_libraries", "pg_stat_statements"),
    ("pg_stat_statements.track", "all"),
    ("track_io_timing", "off"),
    ("jit", "off"),
];

/// A setting that a service or Postgres has in a run: `publisher.RELAY__IN_FLIGHT_MAX=8000`,
/// `postgres.shared_buffers=6GB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuned {
    service: String,
    setting: String,
    value: String,
}

impl FromStr for Tuned {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('=').and_then(|(left, value)| {
            let (service, setting) = left.split_once('.')?;
            Some((service, setting, value))
        });
        match parts {
            Some((service @ ("publisher" | "triage" | "postgres"), setting, value)) if !setting.is_empty() => {
                Ok(Self {
                    service: service.to_owned(),
                    setting: setting.to_owned(),
                    value: value.to_owned(),
                })
            }
            _ => Err(
                "it must read like publisher.RELAY__IN_FLIGHT_MAX=8000, triage.INTAKE__WORKERS=2 or \
                 postgres.shared_buffers=6GB"
                    .to_owned(),
            ),
        }
    }
}

/// Servers, and the session that looks at them.
pub struct Site {
    /// Kafka and Postgres.
    pub stack: Stack,
    tuned: Vec<Tuned>,
    watched: Database,
    watcher: Mutex<PgConnection>,
}

/// What servers have used and written up to a moment.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    /// CPU of Postgres, in microseconds; not known where it is no process of ours.
    pub postgres_us: Option<f64>,
    /// CPU of the broker, in microseconds.
    pub broker_us: Option<f64>,
    /// Bytes of write-ahead log.
    pub wal_bytes: f64,
}

impl Site {
    /// Starts the servers that `STACK` names, with these settings of services and Postgres.
    ///
    /// # Errors
    /// If one does not start.
    pub async fn start(tuned: Vec<Tuned>) -> anyhow::Result<Self> {
        let kafka = KafkaOptions {
            for_speed: true,
            routes: 0,
            ..KafkaOptions::default()
        };
        let asked = tuned.iter().filter(|tuned| tuned.service == "postgres");
        let asked = asked.map(|tuned| (&*tuned.setting, &*tuned.value));
        let postgres: Vec<(&str, &str)> = POSTGRES.into_iter().chain(asked).collect(); // the later one counts
        let stack = Stack::start("bench", &kafka, &postgres).await?;
        let database = stack.empty_database("watch").await?;
        let mut watcher = database.connect().await?;
        sqlx::raw_sql("create extension if not exists pg_stat_statements")
            .execute(&mut watcher)
            .await
            .context("pg_stat_statements")?;
        Ok(Self {
            stack,
            tuned,
            watched: database,
            watcher: Mutex::new(watcher),
        })
    }

    /// Looks again after Postgres was started again.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn watch_again(&self) -> anyhow::Result<()> {
        *self.watcher.lock().await = self.watched.connect().await?;
        Ok(())
    }

    /// A migrated database of its own.
    ///
    /// # Errors
    /// If it cannot be made.
    pub async fn database(&self, label: &str) -> anyhow::Result<Database> {
        self.stack.database(label).await
    }

    /// A topic of its own.
    ///
    /// # Errors
    /// If it cannot be made.
    pub async fn topic(&self, label: &str) -> anyhow::Result<String> {
        self.stack.topic(label, PARTITIONS, &[]).await
    }

    /// The same with room for the dead letter of the largest input, without which a triage service is not ready.
    ///
    /// # Errors
    /// If it cannot be made.
    pub async fn dead_letter_topic(&self, label: &str) -> anyhow::Result<String> {
        let room = [("max.message.bytes", "1114124")];
        self.stack.topic(label, PARTITIONS, &room).await
    }

    /// Takes a database and its topics away: the disk is needed for the next ones.
    ///
    /// # Errors
    /// If something still holds them.
    pub async fn remove(&self, database: &Database, topics: &[&str]) -> anyhow::Result<()> {
        for topic in topics {
            topics::delete(&self.stack.brokers(), topic).await?;
        }
        self.stack.drop_database(database).await
    }

    /// What was used and written until now.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn account(&self) -> anyhow::Result<Account> {
        let postgres = self.stack.postgres().and_then(harness::postgres::Postgres::pid);
        let broker = self.stack.kafka().and_then(|kafka| kafka.nodes()[0].pid());
        let micros = |used: std::time::Duration| used.as_secs_f64() * 1e6;
        let wal_bytes: f64 = sqlx::query_scalar("select (pg_current_wal_insert_lsn() - '0/0')::float8")
            .fetch_one(&mut *self.watcher.lock().await)
            .await?;
        Ok(Account {
            postgres_us: postgres.map(cpu::used_by_family).transpose()?.map(micros),
            broker_us: broker.map(cpu::used_by).transpose()?.map(micros),
            wal_bytes,
        })
    }

    /// Bytes of log a row since there were so many, for rows that were all written since: a course begins when the
    /// first ones are done, and what was written for others by then is not in it.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn log_since(&self, wal_bytes: f64, rows: u64) -> anyhow::Result<f64> {
        Ok((self.account().await?.wal_bytes - wal_bytes) / rows as f64)
    }

    /// Statements that clients have sent to a database until now.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn statements(&self, database: &Database) -> anyhow::Result<i64> {
        let calls = "select coalesce(sum(calls), 0)::bigint from pg_stat_statements join pg_database on oid = dbid \
                      where datname = $1 and toplevel";
        Ok(sqlx::query_scalar(calls)
            .bind(&database.name)
            .fetch_one(&mut *self.watcher.lock().await)
            .await?)
    }

    /// Transactions of a database that have committed until now.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn commits(&self, database: &Database) -> anyhow::Result<i64> {
        Ok(
            sqlx::query_scalar("select xact_commit from pg_stat_database where datname = $1")
                .bind(&database.name)
                .fetch_one(&mut *self.watcher.lock().await)
                .await?,
        )
    }

    /// An `outbox-publisher` on this database, as it is shipped but for what this run sets.
    pub fn publisher(&self, name: &str, database: &Database) -> Service {
        self.tune(Service::publisher(name), "publisher", database)
    }

    /// A `triage-service` on this database, in the same way.
    pub fn triage(&self, name: &str, database: &Database) -> Service {
        self.tune(Service::triage(name), "triage", database)
    }

    fn tune(&self, service: Service, which: &str, database: &Database) -> Service {
        let service = service
            .set("KAFKA__BROKERS", self.stack.brokers())
            .set("DATABASE__URL", &database.url);
        let tuned = self.tuned.iter().filter(|tuned| tuned.service == which);
        tuned.fold(service, |service, tuned| service.set(&tuned.setting, &tuned.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_names_its_service() {
        let read: Tuned = "triage.KAFKA__PROPERTIES__CLIENT_ID=a=b".parse().expect("it names one");
        assert_eq!((read.service.as_str(), read.value.as_str()), ("triage", "a=b"));
        for wrong in [
            "",
            "RELAY__LOOK_MS=1",
            "relay.LOOK_MS=1",
            "publisher.LOOK_MS",
            "publisher.=1",
        ] {
            assert!(wrong.parse::<Tuned>().is_err(), "{wrong:?}");
        }
    }
}
