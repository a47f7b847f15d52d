//! Servers, topics and a database of one run, a network of its own for each service, and their settings.

use std::time::Duration;

use anyhow::{Context, ensure};
use harness::kafka::{Kafka, KafkaOptions, Route};
use harness::postgres::Postgres;
use harness::proxy::{Framing, Proxy};
use harness::stack::Choice;
use harness::{Ability, Audit, Database, Service, Stack, Triage, topics};

use crate::plan::{PUBLISHERS, TRIAGE};

/// Partitions of each topic.
pub(crate) const PARTITIONS: i32 = 12;
/// How long a publisher's lease lasts; 10 s by default. Shorter, so that a fault takes seconds.
const LEASE_MS: u64 = 2_000;
/// After how long the group gives a silent member up; 10 s by default.
const SESSION_MS: u64 = 2_000;
/// Records that a publisher has with the client at most; 8,000 by default. Smaller, so that the bound on
/// duplicates means something at a rate of hundreds.
pub(crate) const IN_FLIGHT_MAX: u64 = 200;
/// The services, in the order of the crew.
pub(crate) const NAMES: [&str; 4] = ["triage-1", "triage-2", "publisher-1", "publisher-2"];

/// What belongs to one service: its networks, each between it and one server.
#[derive(Debug)]
pub(crate) struct Networks<'s> {
    pub(crate) kafka: Proxy,
    pub(crate) postgres: Proxy,
    /// Given back when the proxy is gone.
    _route: Route<'s>,
}

/// Where one run takes place.
#[derive(Debug)]
pub(crate) struct Scene<'s> {
    pub(crate) kafka: &'s Kafka,
    pub(crate) postgres: &'s Postgres,
    pub(crate) database: Database,
    /// Addresses of the brokers without a proxy.
    pub(crate) brokers: String,
    pub(crate) input: String,
    pub(crate) output: String,
    dead_letter: String,
    /// Where events of a library user go.
    pub(crate) enqueued: String,
    /// By service.
    pub(crate) networks: Vec<Networks<'s>>,
}

/// Starts Kafka and Postgres, of which everything may be broken.
pub(crate) async fn start_stack(nodes: usize) -> anyhow::Result<Stack> {
    let choice = Choice::from_environment()?;
    let (kind, reason) = (choice.kind.name(), choice.reason.clone());
    for ability in [Ability::BrokerProcess, Ability::DatabaseProcess, Ability::ProducerState] {
        if let Some(lack) = choice.lacks(ability) {
            anyhow::bail!("STACK={kind} ({reason}) has nothing to break: {lack}; take STACK=kafka or STACK=containers");
        }
    }
    let mut kafka = KafkaOptions {
        nodes,
        routes: NAMES.len(),
        ..KafkaOptions::default()
    }
    .for_broker_faults()
    .property("group.min.session.timeout.ms", SESSION_MS)
    // Leaders go back soon after a node that was away is in sync again: they move while all nodes are up.
    .property("leader.imbalance.check.interval.seconds", 2)
    .property("leader.imbalance.per.broker.percentage", 0);
    if nodes > 1 {
        kafka = kafka.property("min.insync.replicas", 2);
    }
    // As on a machine whose operator took the advice of docs/operations.md; connections for every proxy's past.
    let settings = [("max_connections", "300"), ("tcp_keepalives_idle", "2")];
    Stack::start_chosen(choice, "chaos", &kafka, &settings).await
}

impl<'s> Scene<'s> {
    /// Makes topics, a database and networks.
    pub(crate) async fn new(stack: &'s Stack) -> anyhow::Result<Self> {
        let kafka = stack.kafka().context("the brokers are ours")?;
        let postgres = stack.postgres().context("Postgres is ours")?;
        let topic = |part: &'static str, settings: &'static [(&str, &str)]| async move {
            stack.topic(&format!("chaos-{part}"), PARTITIONS, settings).await
        };
        let networks = NAMES.iter().map(|_| {
            let route = kafka.route()?;
            Ok(Networks {
                kafka: Proxy::for_kafka(&route)?,
                postgres: Proxy::to(postgres.port(), Framing::Raw)?,
                _route: route,
            })
        });
        Ok(Self {
            kafka,
            postgres,
            database: stack.database("chaos").await?,
            brokers: stack.brokers(),
            input: topic("input", &[]).await?,
            output: topic("output", &[]).await?,
            dead_letter: topic("dead-letter", &[("max.message.bytes", "1114124")]).await?,
            enqueued: topic("library", &[]).await?,
            networks: networks.collect::<anyhow::Result<_>>()?,
        })
    }

    /// The service at a place of the crew, on its own network, with times that let a fault take seconds.
    pub(crate) fn service(&self, place: usize) -> Service {
        let (name, networks) = (NAMES[place], &self.networks[place]);
        let is_triage = TRIAGE.contains(&place);
        debug_assert!(is_triage || PUBLISHERS.contains(&place));
        let url = format!(
            "postgres://postgres@{}/{}",
            networks.postgres.address(),
            self.database.name
        );
        let service = if is_triage {
            Service::triage(name)
        } else {
            Service::publisher(name)
        };
        let service = service
            .set("KAFKA__BROKERS", networks.kafka.address())
            .set("KAFKA__PROPERTIES__RECONNECT_BACKOFF_MAX_MS", 500)
            .set("KAFKA__PROPERTIES__SOCKET_TIMEOUT_MS", 4_000)
            .set("DATABASE__URL", url)
            .set("DATABASE__CONNECT_TIMEOUT_MS", 1_000)
            .set("DATABASE__LOCK_TIMEOUT_MS", 1_000)
            .set("DATABASE__IDLE_IN_TRANSACTION_TIMEOUT_MS", 1_500);
        if is_triage {
            service
                .set("KAFKA__GROUP", self.group())
                .set("KAFKA__PROPERTIES__SESSION_TIMEOUT_MS", SESSION_MS)
                .set("KAFKA__PROPERTIES__HEARTBEAT_INTERVAL_MS", 300)
                .set("TOPICS__INPUT", &self.input)
                .set("TOPICS__OUTPUT", &self.output)
                .set("TOPICS__DEAD_LETTER", &self.dead_letter)
                .set("INTAKE__ATTEMPT_TIMEOUT_MS", 3_000)
                .set("INTAKE__RETRY_MAX_MS", 1_000)
        } else {
            service
                .set("KAFKA__PROPERTIES__REQUEST_TIMEOUT_MS", 3_000)
                .set("LEASE__DURATION_MS", LEASE_MS)
                .set("LEASE__RENEW_MS", LEASE_MS / 6)
                .set("RELAY__IN_FLIGHT_MAX", IN_FLIGHT_MAX)
                .set("RELAY__STATEMENT_MS", 3_000)
                .set("RETRY__TOPIC_PAUSE_MAX_MS", 1_000)
        }
    }

    /// `claimfirst`, which asks the servers without a proxy.
    pub(crate) fn tool(&self) -> Service {
        Service::tool("claimfirst")
            .set("KAFKA__BROKERS", &self.brokers)
            .set("KAFKA__GROUP", self.group())
            .set("DATABASE__URL", &self.database.url)
            .set("TOPICS__INPUT", &self.input)
            .set("TOPICS__OUTPUT", &self.output)
            .set("TOPICS__DEAD_LETTER", &self.dead_letter)
    }

    /// The judge of what happened here.
    pub(crate) fn audit(&self) -> Audit {
        let judged = Triage {
            consumer: self.group().to_owned(),
            group: self.group().to_owned(),
            inputs: vec![self.input.clone()],
            output: self.output.clone(),
            dead_letter: self.dead_letter.clone(),
        };
        Audit::new(&self.brokers, &self.database).triage(judged).with_faults()
    }

    /// Every topic that services write.
    pub(crate) fn outputs(&self) -> [&str; 3] {
        [&self.output, &self.dead_letter, &self.enqueued]
    }

    /// Waits until every replica of the cluster is in sync again, so that the next node may go.
    pub(crate) async fn until_in_sync(&self, within: Duration) -> anyhow::Result<()> {
        let nodes = self.kafka.nodes().len();
        for topic in [&self.input, &self.output, &self.dead_letter, &self.enqueued] {
            topics::until_in_sync(&self.brokers, topic, nodes, within).await?;
        }
        Ok(())
    }

    /// Whether every record of the input is behind the group.
    pub(crate) async fn is_consumed(&self) -> anyhow::Result<bool> {
        let committed = topics::committed(&self.brokers, self.group(), &self.input).await?;
        ensure!(!committed.is_empty(), "{} has no partitions", self.input);
        Ok(committed.iter().all(topics::Committed::is_at_end))
    }

    fn group(&self) -> &'static str {
        "chaos"
    }
}
