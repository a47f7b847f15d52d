//! Apache Kafka from its published jars, in KRaft mode, one node or three.

mod node;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, ensure};

use crate::{folders, ports};

pub use node::Node;
use node::find_on_path;

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
}

/// A Kafka cluster of our own. Its folders and its processes end with us.
#[derive(Debug)]
pub struct Kafka {
    nodes: Vec<Node>,
    free_routes: Mutex<Vec<usize>>,
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

    /// Makes and starts a cluster and waits until every node answers.
    pub async fn start_new(name: &str, options: &KafkaOptions) -> anyhow::Result<Self> {
        ensure!(
            options.nodes == 1 || options.nodes == 3,
            "a cluster has one node or three, not {}",
            options.nodes
        );
        Self::fetch_jars().await?;
        let cluster = random_uuid();
        let controllers = (0..options.nodes)
            .map(|_| ports::free())
            .collect::<anyhow::Result<Vec<_>>>()?;
        let voters = controllers
            .iter()
            .enumerate()
            .map(|(index, port)| format!("{}@127.0.0.1:{port}", index + 1))
            .collect::<Vec<_>>()
            .join(",");
        let mut nodes = Vec::new();
        for (index, controller) in controllers.into_iter().enumerate() {
            let node_name = if options.nodes == 1 {
                name.to_owned()
            } else {
                format!("{name}-{}", index + 1)
            };
            nodes.push(Node::new(index + 1, &node_name, &cluster, options)?);
            nodes[index]
                .format(&nodes[index].properties(controller, &voters, options))
                .await?;
        }
        // A node alone has no quorum: all are started before one is waited for.
        for node in &nodes {
            node.spawn()?;
        }
        for node in &nodes {
            node.wait_until_it_answers(options.nodes).await?;
        }
        Ok(Self {
            nodes,
            free_routes: Mutex::new((0..options.routes).collect()),
        })
    }

    /// The addresses for `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        self.nodes.iter().map(Node::address).collect::<Vec<_>>().join(",")
    }

    /// The nodes, by their id less one.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
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
