//! The outbox publisher on a real Kafka and a real Postgres: published once, in order, whatever breaks.
//!
//! | module | shows |
//! |---|---|
//! | [`cost`] | what publishing does to the tables, in a real run |
//! | [`publishing`] | nothing is broken: shares, order, records, what it costs to wait |
//! | [`refusals`] | what the broker refuses: a record, a batch, a whole topic |
//! | [`missing`] | a topic that is not there, and then is |
//! | [`unsendable`] | rows that no broker would take |
//! | [`hostile`] | thousands of generated ones that nobody should write |
//! | [`takeover`] | publishers that die, stall or come back |
//! | [`faults`] | Postgres or Kafka away, slow or silent |
//! | [`unheard`] | brokers that a client has forgotten, or of which it hears nothing |
//! | [`encrypted`] | servers that encrypt and ask for a password |

mod cost;
mod encrypted;
mod faults;
mod hostile;
mod missing;
mod publishing;
pub(crate) mod refusals;
mod takeover;
mod unheard;
mod unsendable;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use harness::wait::{self, Seen};
use harness::{Audit, Database, Running, Service, Stack, Verdict};
use shared::doorbell::Doorbell;
use shared::outbox::{self, NewEvent};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long anything may take that takes a second on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// How long a publisher may take to drain.
pub(crate) const DRAINED: Duration = Duration::from_secs(20);
/// The lease of the scenarios' publishers.
pub(crate) const LEASE: Duration = Duration::from_millis(2_000);

/// One scenario's outbox, with the stack that it stands on.
pub(crate) struct Outbox<'s> {
    pub(crate) stack: &'s Stack,
    pub(crate) database: Database,
    /// Where publishers find Kafka.
    pub(crate) brokers: String,
}

impl Outbox<'static> {
    /// An outbox on the stack that all scenarios share.
    pub(crate) async fn shared(test: &str) -> anyhow::Result<Self> {
        Self::on(Stack::shared().await?, test).await
    }
}

impl<'s> Outbox<'s> {
    /// An outbox on a stack that this scenario may break.
    pub(crate) async fn on(stack: &'s Stack, test: &str) -> anyhow::Result<Self> {
        Ok(Self {
            stack,
            database: stack.database(test).await?,
            brokers: stack.brokers(),
        })
    }

    /// A publisher of this outbox, with times short enough for a test.
    pub(crate) fn publisher(&self, name: &str) -> Service {
        Service::publisher(name)
            .set("KAFKA__BROKERS", &self.brokers)
            .set("DATABASE__URL", &self.database.url)
            .set("LEASE__DURATION_MS", LEASE.as_millis())
            .set("LEASE__RENEW_MS", 300)
            .set("RELAY__LOOK_MS", 200)
            .set("RELAY__SWEEP_SECONDS", 2)
            .set("RETRY__PAUSE_INITIAL_MS", 50)
            .set("RETRY__PAUSE_MAX_MS", 400)
            .set("RETRY__ATTEMPTS_MAX", 4)
            .set("RETRY__TOPIC_PAUSE_INITIAL_MS", 100)
            .set("RETRY__TOPIC_PAUSE_MAX_MS", 500)
    }

    pub(crate) async fn topic(
        &self,
        label: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<String> {
        self.stack.topic(label, partitions, settings).await
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<PgConnection> {
        self.database.connect().await
    }

    pub(crate) fn doorbell(&self) -> anyhow::Result<Doorbell> {
        Ok(Doorbell::new(self.database.url.parse()?))
    }

    /// Writes events in one transaction, their keys in turn with other writers.
    pub(crate) async fn write(&self, events: &[NewEvent]) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        write(&mut connection, events).await?;
        Ok(connection.close().await?)
    }

    /// Writes `count` events to each of `keys`, a transaction for each round.
    pub(crate) async fn write_rounds(&self, topic: &str, keys: &[&str], count: usize) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        for round in 0..count {
            let events: Vec<_> = keys
                .iter()
                .map(|key| event(topic, key, &format!("{key} {round}")))
                .collect();
            write(&mut connection, &events).await?;
        }
        Ok(connection.close().await?)
    }

    /// Rows by status.
    pub(crate) async fn statuses(&self) -> anyhow::Result<BTreeMap<String, i64>> {
        let mut connection = self.connect().await?;
        let counted: Vec<(String, i64)> = sqlx::query_as("select status::text, count(*) from outbox_events group by 1")
            .fetch_all(&mut connection)
            .await?;
        connection.close().await?;
        Ok(counted.into_iter().collect())
    }

    /// Waits until the rows of each status are exactly as many.
    pub(crate) async fn until_statuses(&self, expected: &[(&str, i64)]) -> anyhow::Result<()> {
        let expected: BTreeMap<String, i64> = expected
            .iter()
            .map(|(status, count)| ((*status).to_owned(), *count))
            .collect();
        let what = format!("rows to be {expected:?}");
        wait::until(&what, SOON, || async {
            Ok(Seen::when(self.statuses().await?, |now| *now == expected))
        })
        .await?;
        Ok(())
    }

    /// Waits until no row is PENDING.
    pub(crate) async fn until_nothing_waits(&self) -> anyhow::Result<()> {
        wait::until("no row to be PENDING", SOON, || async {
            Ok(Seen::when(self.statuses().await?, |now| !now.contains_key("PENDING")))
        })
        .await?;
        Ok(())
    }

    /// One number out of the database.
    pub(crate) async fn number(&self, query: &'static str) -> anyhow::Result<i64> {
        let mut connection = self.connect().await?;
        let number = sqlx::query_scalar(query)
            .fetch_one(&mut connection)
            .await
            .with_context(|| query.to_owned())?;
        connection.close().await?;
        Ok(number)
    }

    /// Waits until a number out of the database fulfils a condition.
    pub(crate) async fn until_number(
        &self,
        query: &'static str,
        within: Duration,
        holds: impl Fn(i64) -> bool,
    ) -> anyhow::Result<i64> {
        wait::until(query, within, || async {
            Ok(Seen::when(self.number(query).await?, |number| holds(*number)))
        })
        .await
    }

    /// Attempts counted, all rows together.
    pub(crate) async fn attempts(&self) -> anyhow::Result<i64> {
        self.number("select coalesce(sum(publish_attempts), 0)::bigint from outbox_events")
            .await
    }

    /// Puts FAILED rows of a topic back; how many.
    pub(crate) async fn redrive(&self, topic: &str) -> anyhow::Result<i64> {
        let mut connection = self.connect().await?;
        let count = sqlx::query_scalar("select outbox_redrive(p_topic => $1)")
            .bind(topic)
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok(count)
    }

    /// The judge of this outbox.
    pub(crate) fn audit(&self) -> Audit {
        Audit::new(&self.stack.brokers(), &self.database)
    }

    /// Ends the publishers by SIGTERM and judges what they leave.
    pub(crate) async fn end(&self, publishers: Vec<Running>, audit: Audit) -> anyhow::Result<Verdict> {
        for publisher in publishers {
            let name = publisher.name().to_owned();
            let swept = publisher.metric("outbox_swept_events_total").await?;
            anyhow::ensure!(swept == Some(0.0), "{name} found {swept:?} events only by its sweep");
            let code = publisher.terminate(DRAINED).await?;
            harness::process::expect_code(&name, code, 0)?;
        }
        let verdict = audit.run().await?;
        verdict.assert_clean();
        Ok(verdict)
    }
}

/// An event with a key and a text.
pub(crate) fn event(topic: &str, key: &str, text: &str) -> NewEvent {
    NewEvent::new(topic, "test.happened", text.as_bytes().to_vec()).key(key)
}

pub(crate) async fn write(connection: &mut PgConnection, events: &[NewEvent]) -> anyhow::Result<()> {
    let mut tx = connection.begin().await?;
    outbox::enqueue_ordered(&mut tx, events).await?;
    Ok(tx.commit().await?)
}

/// Writers that go on until they are told to stop.
pub(crate) struct Load {
    stop: CancellationToken,
    written: Arc<AtomicU64>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `writers` writers, each a transaction of ten events every `pause`, on `keys` keys.
    pub(crate) fn start(outbox: &Outbox<'_>, topic: &str, writers: u64, keys: u64, pause: Duration) -> Self {
        let (stop, written) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let tasks = (0..writers).map(|writer| {
            let (stop, written, database, topic) = (
                stop.clone(),
                Arc::clone(&written),
                outbox.database.clone(),
                topic.to_owned(),
            );
            tokio::spawn(async move {
                let mut connection = None;
                for round in 0_u64.. {
                    if stop.is_cancelled() {
                        return;
                    }
                    // A Postgres that is away is a part of the scenario: what was not committed is no row.
                    if connection.is_none() {
                        connection = database.connect().await.ok();
                    }
                    if let Some(open) = &mut connection {
                        let events: Vec<_> = (0..10)
                            .map(|n| {
                                event(
                                    &topic,
                                    &format!("key-{}", (writer * 7 + round * 3 + n) % keys),
                                    &format!("{writer} {round} {n}"),
                                )
                            })
                            .collect();
                        match write(open, &events).await {
                            Ok(()) => drop(written.fetch_add(10, Ordering::SeqCst)),
                            Err(_) => connection = None,
                        }
                    }
                    tokio::time::sleep(pause).await;
                }
            })
        });
        let writers = tasks.collect();
        Self { stop, written, writers }
    }

    /// Events of commits that are known.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// Waits until so many more events were written.
    pub(crate) async fn more(&self, count: u64) -> anyhow::Result<()> {
        let goal = self.written() + count;
        wait::until("the load to go on", SOON, || async {
            Ok(Seen::when(self.written(), |now| *now >= goal))
        })
        .await?;
        Ok(())
    }

    /// Ends the writers; how many events they know to be committed.
    pub(crate) async fn stop(self) -> anyhow::Result<u64> {
        self.stop.cancel();
        for writer in self.writers {
            writer.await?;
        }
        Ok(self.written.load(Ordering::SeqCst))
    }
}

/// Waits until readiness says something of which `holds` is true; the status and the text.
pub(crate) async fn until_readiness(
    publisher: &Running,
    within: Duration,
    what: &str,
    holds: impl Fn(u16, &str) -> bool,
) -> anyhow::Result<String> {
    wait::until(&format!("{} to say {what}", publisher.name()), within, || async {
        let answer = publisher.get("/readyz").await?;
        if holds(answer.status, &answer.body) {
            Ok(Seen::Yes(answer.body))
        } else {
            Ok(Seen::NotYet(format!("{} {}", answer.status, answer.body)))
        }
    })
    .await
}

/// Processor time that a process has used.
pub(crate) fn cpu_of(publisher: &Running) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", publisher.pid()))?;
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .context("a process has a name")?
        .1
        .split(' ')
        .collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10)) // Linux counts hundredths of a second here
}

/// The event ids of a topic's records, in the order of their partition.
pub(crate) fn ids_on(reads: &[harness::Read]) -> Vec<Uuid> {
    reads
        .iter()
        .filter_map(|read| read.header("event-id")?.parse().ok())
        .collect()
}
