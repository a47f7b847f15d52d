//! Two of each service, Kafka and Postgres on a network of their own, and a stream that they carry.

use std::time::{Instant, SystemTime};

use anyhow::Context;
use futures_util::future::try_join_all;
use harness::docker::Made;
use harness::feed::{self, Feeder, Pace, Writer};
use harness::input::Inputs;
use harness::kafka::{Kafka, KafkaOptions, Node};
use harness::postgres::Postgres;
use harness::stack::Home;
use harness::wait::{self, Seen};
use harness::{Audit, Database, Service, Triage, Verdict, topics};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::replica::{Replica, SOON};

const INPUT: &str = "input";
const OUTPUT: &str = "output";
const DEAD_LETTER: &str = "input.dlt";
const GROUP: &str = "triage";
/// Of each topic.
pub(crate) const PARTITIONS: u64 = 6;
/// Buckets of an outbox, which the publishers share.
pub(crate) const BUCKETS: u64 = 64;
/// How long a lease lasts here; shorter than by default, so that tests need not wait.
const LEASE_MS: u64 = 3_000;
/// After how long the group gives a silent member up; the least that brokers allow.
const SESSION_MS: u64 = 6_000;
/// After how long a Postgres that says nothing counts as gone, and twice that for a broker; 30 s and a minute
/// by default.
const SILENCE_MS: u64 = 4_000;
/// Records a second: enough that something is always in flight, little for a small machine.
const RATE: u64 = 150;
/// At most, if a test lasts long.
const RECORDS_MAX: u64 = 20_000;
/// What must come out before and after a fault.
const SOME: i64 = 300;
const PUBLISHED: &str = "select count(*) from outbox_events where status = 'PUBLISHED'";
const WAITING: &str = "select count(*) from outbox_events where status = 'PENDING'";
/// Metrics of what an instance holds.
pub(crate) const BUCKETS_HELD: &str = "outbox_buckets_held";
pub(crate) const PARTITIONS_HELD: &str = "triage_assigned_partitions";

/// A deployment is six processes under load, a JVM among them: with more of them at a time a machine of two cores
/// is late everywhere, and what a test calls the effect of a fault is that.
static PLACES: Semaphore = Semaphore::const_new(2);

/// A whole system under load. What was declared first is removed first.
pub(crate) struct Deployment {
    /// Both of `triage-service`.
    pub(crate) triage: [Replica; 2],
    /// Both of `outbox-publisher`.
    pub(crate) publishers: [Replica; 2],
    kafka: Kafka,
    /// The database server.
    pub(crate) postgres: Postgres,
    network: Made,
    database: Database,
    feeder: Feeder,
    _place: SemaphorePermit<'static>,
}

impl Deployment {
    /// Starts everything and waits until records come out; nothing, with the reason said, on another stack.
    pub(crate) async fn start(test: &str) -> anyhow::Result<Option<Self>> {
        if Home::from_environment()? != Home::Containers {
            eprintln!("SKIPPED {test}: containers are started on STACK=containers only");
            return Ok(None);
        }
        let place = PLACES.acquire().await?;
        let network = Made::network(test).await?;
        let (kafka, postgres) =
            tokio::try_join!(start_kafka(test, network.name()), start_postgres(test, network.name()))?;
        let (triage, publishers) = services(&kafka, &postgres)?;
        let start = async |name: &str, service: &Service| {
            Replica::start(&format!("{test}-{name}"), service, network.name()).await
        };
        let (triage_1, triage_2, publisher_1, publisher_2) = tokio::try_join!(
            start("triage-1", &triage),
            start("triage-2", &triage),
            start("publisher-1", &publishers),
            start("publisher-2", &publishers),
        )?;
        let deployment = Self {
            triage: [triage_1, triage_2],
            publishers: [publisher_1, publisher_2],
            database: Database {
                name: "postgres".to_owned(),
                url: postgres.url("postgres"),
            },
            feeder: start_stream(&kafka)?,
            kafka,
            postgres,
            network,
            _place: place,
        };
        deployment.moves().await?;
        Ok(Some(deployment))
    }

    /// The one broker.
    pub(crate) fn kafka(&self) -> &Node {
        &self.kafka.nodes()[0]
    }

    /// The name of the network.
    pub(crate) fn network(&self) -> &str {
        self.network.name()
    }

    /// All four instances.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = &Replica> {
        self.triage.iter().chain(&self.publishers)
    }

    /// Waits until more records have come through, from the input to where they belong.
    pub(crate) async fn moves(&self) -> anyhow::Result<()> {
        let before = until_count(&self.database, PUBLISHED, "an answer of Postgres", |_| true).await?;
        let is_more = |now| now >= before + SOME;
        until_count(&self.database, PUBLISHED, "records to come through", is_more).await?;
        Ok(())
    }

    /// Waits until every instance is ready and records come through.
    pub(crate) async fn recovers(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        for replica in self.replicas() {
            replica.ready().await?;
        }
        self.moves().await?;
        eprintln!(
            "all is well {:.1} s after the end of the fault",
            began.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// Ends the stream, waits until all of it has come through, drains the services and judges.
    pub(crate) async fn end(self, had_fault: bool) -> anyhow::Result<Verdict> {
        let written = self.feeder.stop().await?;
        let brokers = self.kafka.bootstrap();
        wait::until("all records to be behind the group", SOON, || async {
            let committed = topics::committed(&brokers, GROUP, INPUT).await?;
            Ok(Seen::when(committed, |all| {
                all.iter().all(topics::Committed::is_at_end)
            }))
        })
        .await?;
        until_count(&self.database, WAITING, "the outbox to be empty", |waiting| {
            waiting == 0
        })
        .await?;
        try_join_all(self.triage.iter().chain(&self.publishers).map(Replica::drain)).await?;

        let mut audit = Audit::new(&brokers, &self.database).triage(Triage {
            consumer: GROUP.to_owned(),
            group: GROUP.to_owned(),
            inputs: vec![INPUT.to_owned()],
            output: OUTPUT.to_owned(),
            dead_letter: DEAD_LETTER.to_owned(),
        });
        if had_fault {
            audit = audit.with_faults();
        }
        let mut verdict = audit.run().await?;
        feed::compare(&mut verdict, &written);
        verdict.assert_clean();
        eprintln!(
            "{} records in, {} decided, {} published, lost {}, decided twice {}, order broken {}, published again {}",
            verdict.records_in,
            verdict.decisions.values().sum::<u64>(),
            verdict.published,
            verdict.lost,
            verdict.decided_twice,
            verdict.order_violations,
            verdict.publish_duplicates
        );
        Ok(verdict)
    }
}

async fn start_kafka(test: &str, network: &str) -> anyhow::Result<Kafka> {
    let options = KafkaOptions {
        routes: 0,
        ..KafkaOptions::default()
    }
    .for_broker_faults();
    let kafka = Kafka::start_on(network, &format!("{test}-kafka"), &options).await?;
    let partitions = i32::try_from(PARTITIONS)?;
    // A dead letter is larger than its record.
    for (topic, room) in [(INPUT, "1048588"), (OUTPUT, "1048588"), (DEAD_LETTER, "1114124")] {
        topics::create(&kafka.bootstrap(), topic, partitions, 1, &[("max.message.bytes", room)]).await?;
    }
    Ok(kafka)
}

async fn start_postgres(test: &str, network: &str) -> anyhow::Result<Postgres> {
    Postgres::start_on(network, &format!("{test}-postgres"), &[]).await
}

/// Both services, with the addresses of the network.
fn services(kafka: &Kafka, postgres: &Postgres) -> anyhow::Result<(Service, Service)> {
    let brokers = kafka.nodes()[0].private_address().context("Kafka is in a container")?;
    let url = postgres.private_url("postgres").context("Postgres is in a container")?;
    let common = |service: Service| {
        service
            .set("HTTP__LISTEN", "0.0.0.0:8080")
            .set("KAFKA__BROKERS", &brokers)
            .set("DATABASE__URL", &url)
    };
    let triage = common(Service::triage("triage"))
        .set("KAFKA__GROUP", GROUP)
        .set("KAFKA__PROPERTIES__SESSION_TIMEOUT_MS", SESSION_MS)
        .set("KAFKA__PROPERTIES__SOCKET_TIMEOUT_MS", 2 * SILENCE_MS)
        .set("DATABASE__LOCK_TIMEOUT_MS", SILENCE_MS / 2) // must be less than the next
        .set("INTAKE__ATTEMPT_TIMEOUT_MS", SILENCE_MS)
        .set("TOPICS__INPUT", INPUT)
        .set("TOPICS__OUTPUT", OUTPUT)
        .set("TOPICS__DEAD_LETTER", DEAD_LETTER);
    let publisher = common(Service::publisher("publisher"))
        .set("LEASE__DURATION_MS", LEASE_MS)
        .set("LEASE__RENEW_MS", LEASE_MS / 6)
        .set("RELAY__STATEMENT_MS", SILENCE_MS);
    Ok((triage, publisher))
}

fn start_stream(kafka: &Kafka) -> anyhow::Result<Feeder> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let inputs = Inputs::new(1, i64::try_from(now.as_millis())?);
    let pace = Pace {
        rate: RATE,
        most: RECORDS_MAX,
    };
    Ok(Feeder::start(
        Writer::new(&kafka.bootstrap(), INPUT)?,
        inputs,
        pace,
        None,
    ))
}

async fn until_count(
    database: &Database,
    sql: &'static str,
    what: &str,
    holds: impl Fn(i64) -> bool,
) -> anyhow::Result<i64> {
    wait::until(what, SOON, || async {
        let mut connection = database.connect().await?;
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await?;
        Ok(Seen::when(count, |count| holds(*count)))
    })
    .await
}
