//! Apache Kafka in KRaft mode, one node or three, as processes from its published jars or as containers.

#[cfg_attr(not(feature = "containers"), path = "kafka/absent.rs")]
mod container;
mod node;
mod process;
mod properties;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;

use crate::docker::Made;
use crate::stack::Home;
use crate::wait::{self, Seen};
use crate::{folders, ports};

use container::InContainer;
pub use node::Node;
use node::{Life, Seat};
use process::{Process, find_on_path};

/// What a cluster is like.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// One node, or three.
    pub nodes: usize,
    /// Ways through proxies that tests can take ([`Kafka::route`]). Each costs a listener.
    pub routes: usize,
    /// Broker properties beside ours, or instead of them.
    pub properties: Vec<(String, String)>,
    /// Leaves the JIT as it is and gives more memory: slower to start, faster to run.
    pub for_speed: bool,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            nodes: 1,
            routes: 4,
            properties: Vec::new(),
            for_speed: false,
        }
    }
}

impl KafkaOptions {
    /// Adds a broker property.
    #[must_use]
    pub fn property(mut self, name: &str, value: impl ToString) -> Self {
        self.properties.push((name.to_owned(), value.to_string()));
        self
    }

    /// For a test that ends a broker or freezes it: its session is over after three seconds without a heartbeat.
    /// Until then a killed broker stands in its own way, and in that of its followers.
    #[must_use]
    pub fn for_broker_faults(self) -> Self {
        self.property("broker.session.timeout.ms", 3_000)
    }
}

/// A Kafka cluster of our own. Whatever belongs to it ends with us.
#[derive(Debug)]
pub struct Kafka {
    nodes: Vec<Node>,
    free_routes: Mutex<Vec<usize>>,
    /// Behind the nodes, so that it is removed after them.
    _network: Option<Made>,
}

/// One broker's part of a way through proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// Where the broker tells clients to connect, so where the proxy must listen.
    pub listen: u16,
    /// Where the proxy must connect to.
    pub upstream: u16,
}

/// A way to the cluster on which the broker names only the proxies' addresses. Given back on drop.
#[derive(Debug)]
pub struct Route<'k> {
    /// One hop for each broker.
    pub hops: Vec<Hop>,
    kafka: &'k Kafka,
    number: usize,
}

impl Kafka {
    /// Where the jars lie once they were fetched.
    pub fn jars() -> PathBuf {
        folders::workspace().join(".stack/kafka")
    }

    /// Fetches the jars unless they are there. `.ci/install` does it, so that people and CI can as well.
    pub async fn fetch_jars() -> anyhow::Result<()> {
        if Self::jars().is_dir() && find_on_path("java").is_some() {
            return Ok(());
        }
        let status = tokio::process::Command::new(folders::workspace().join(".ci/install"))
            .arg("kafka")
            .status()
            .await
            .context("run .ci/install kafka")?;
        ensure!(
            status.success(),
            "`.ci/install kafka` ended with {status}: Java, Maven or Kafka's jars are missing"
        );
        Ok(())
    }

    /// Makes and starts a cluster where this run has its servers, and waits until every node answers.
    pub async fn start_new(name: &str, options: &KafkaOptions) -> anyhow::Result<Self> {
        Self::start_in(Home::from_environment()?, name, options).await
    }

    /// The same in a given home.
    pub async fn start_in(home: Home, name: &str, options: &KafkaOptions) -> anyhow::Result<Self> {
        let seats = Self::seats(name, options)?;
        let (nodes, network) = match home {
            Home::Processes => (Self::start_processes(seats, options).await?, None),
            // Only on a network of their own do containers know each other by name.
            Home::Containers if options.nodes > 1 => {
                let network = Made::network(name).await?;
                let nodes = Self::start_containers(seats, Some(network.name()), options).await?;
                (nodes, Some(network))
            }
            Home::Containers => (Self::start_containers(seats, None, options).await?, None),
        };
        Self::once_all_answer(nodes, network, options).await
    }

    /// The same in containers on a given network, which other containers reach by [`Node::private_address`].
    pub async fn start_on(network: &str, name: &str, options: &KafkaOptions) -> anyhow::Result<Self> {
        let nodes = Self::start_containers(Self::seats(name, options)?, Some(network), options).await?;
        Self::once_all_answer(nodes, None, options).await
    }

    fn seats(name: &str, options: &KafkaOptions) -> anyhow::Result<Vec<Seat>> {
        ensure!(
            options.nodes == 1 || options.nodes == 3,
            "a cluster has one node or three, not {}",
            options.nodes
        );
        let cluster = random_uuid();
        let seat = |id| {
            let name = match options.nodes {
                1 => name.to_owned(),
                _ => format!("{name}-{id}"),
            };
            Seat::take(id, &name, &cluster, options)
        };
        (1..=options.nodes).map(seat).collect()
    }

    async fn once_all_answer(nodes: Vec<Node>, network: Option<Made>, options: &KafkaOptions) -> anyhow::Result<Self> {
        for node in &nodes {
            node.wait_until_it_answers(options.nodes).await?;
        }
        Ok(Self {
            nodes,
            free_routes: Mutex::new((0..options.routes).collect()),
            _network: network,
        })
    }

    async fn start_processes(seats: Vec<Seat>, options: &KafkaOptions) -> anyhow::Result<Vec<Node>> {
        Self::fetch_jars().await?;
        let controllers = seats
            .iter()
            .map(|_| ports::free())
            .collect::<anyhow::Result<Vec<_>>>()?;
        let voters = controllers.iter().zip(&seats);
        let voters = voters.map(|(port, seat)| format!("{}@127.0.0.1:{port}", seat.id));
        let voters = voters.collect::<Vec<_>>().join(",");
        let mut formatted = Vec::new();
        for (seat, controller) in seats.into_iter().zip(controllers) {
            let process = Process::new(&seat, controller, &voters, options).await?;
            formatted.push((seat, process));
        }
        // A node alone has no quorum: all are started before one is waited for.
        let start = |(seat, process): (Seat, Process)| {
            process.spawn()?;
            Ok(Node::new(seat, Life::Process(process)))
        };
        formatted.into_iter().map(start).collect()
    }

    async fn start_containers(
        seats: Vec<Seat>,
        network: Option<&str>,
        options: &KafkaOptions,
    ) -> anyhow::Result<Vec<Node>> {
        let names: Vec<String> = seats.iter().map(InContainer::name_for).collect();
        let starts = seats
            .iter()
            .map(|seat| InContainer::start_new(seat, &names, network, options));
        // A node alone has no quorum: all are started side by side.
        let brokers = try_join_all(starts).await?;
        let nodes = seats.into_iter().zip(brokers);
        Ok(nodes
            .map(|(seat, broker)| Node::new(seat, Life::Container(broker)))
            .collect())
    }

    /// The addresses for `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        self.nodes.iter().map(Node::address).collect::<Vec<_>>().join(",")
    }

    /// The nodes, by their id less one.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A way through proxies, as soon as no other test uses it.
    pub async fn free_route(&self, within: Duration) -> anyhow::Result<Route<'_>> {
        wait::until("a way to Kafka that no other test uses", within, || async {
            Ok(self
                .route()
                .map_or_else(|error| Seen::NotYet(error.to_string()), Seen::Yes))
        })
        .await
    }

    /// A way through proxies that no other test uses now.
    pub fn route(&self) -> anyhow::Result<Route<'_>> {
        let number = self
            .free_routes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .context("all routes are taken; ask for more in KafkaOptions::routes")?;
        Ok(Route {
            hops: self.nodes.iter().map(|node| node.hop(number)).collect(),
            kafka: self,
            number,
        })
    }
}

impl Drop for Route<'_> {
    fn drop(&mut self) {
        self.kafka
            .free_routes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(self.number);
    }
}

/// Sixteen random bytes as Kafka writes them: base64 for URLs, without padding.
fn random_uuid() -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = uuid::Uuid::new_v4().into_bytes();
    bytes[0] &= 0x7f; // no leading '-', which a command line would take for an option
    let mut text = String::with_capacity(22);
    for three in bytes.chunks(3) {
        let padded = [three[0], *three.get(1).unwrap_or(&0), *three.get(2).unwrap_or(&0)];
        let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        for place in 0..=three.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}
