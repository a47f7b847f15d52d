//! One broker, as tests know it, whether it is a process or a container.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::container::InContainer;
use super::process::Process;
use super::{Hop, KafkaOptions};
use crate::docker::Container;
use crate::ports;
use crate::wait::{self, Seen};

/// How long a start until a metadata answer may take on a busy machine.
pub(super) const START_WITHIN: Duration = Duration::from_secs(90);
/// How long a client waits for one metadata answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// One broker, which is also a controller.
#[derive(Debug)]
pub struct Node {
    seat: Seat,
    life: Life,
}

/// What a broker is told of itself before it starts.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) id: usize,
    pub(super) name: String,
    /// The cluster's id.
    pub(super) cluster: String,
    /// On 127.0.0.1, as all of them.
    pub(super) port: u16,
    /// By route: the port that the broker is reached at, and the one it tells clients to come to.
    pub(super) detours: Vec<Hop>,
}

/// How a broker lives.
#[derive(Debug)]
pub(super) enum Life {
    Process(Process),
    Container(InContainer),
}

impl Seat {
    pub(super) fn take(id: usize, name: &str, cluster: &str, options: &KafkaOptions) -> anyhow::Result<Self> {
        let hop = |_| {
            Ok(Hop {
                listen: ports::free()?,
                upstream: ports::free()?,
            })
        };
        Ok(Self {
            id,
            name: name.to_owned(),
            cluster: cluster.to_owned(),
            port: ports::free()?,
            detours: (0..options.routes).map(hop).collect::<anyhow::Result<_>>()?,
        })
    }
}

impl Node {
    pub(super) fn new(seat: Seat, life: Life) -> Self {
        Self { seat, life }
    }

    /// Its part of a way through proxies.
    pub(super) fn hop(&self, route: usize) -> Hop {
        self.seat.detours[route]
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.seat.port)
    }

    /// The broker's id in metadata.
    pub fn id(&self) -> usize {
        self.seat.id
    }

    /// The broker's process, while it runs as one of ours.
    pub fn pid(&self) -> Option<u32> {
        match &self.life {
            Life::Process(process) => process.pid(),
            Life::Container(_) => None,
        }
    }

    /// The broker's log.
    pub fn log(&self) -> &Path {
        match &self.life {
            Life::Process(process) => process.log(),
            Life::Container(broker) => broker.container().log(),
        }
    }

    /// Its container, for what only those have, if it lives in one.
    pub fn container(&self) -> Option<&Container> {
        match &self.life {
            Life::Process(_) => None,
            Life::Container(broker) => Some(broker.container()),
        }
    }

    /// Where other containers on its network reach it.
    pub fn private_address(&self) -> Option<String> {
        match &self.life {
            Life::Process(_) => None,
            Life::Container(broker) => Some(broker.private_address()),
        }
    }

    /// Makes a new container on the same volume, and waits until it answers.
    pub async fn renew(&self) -> anyhow::Result<()> {
        let container = self.container().context("the node does not live in a container")?;
        container.renew().await?;
        self.wait_until_it_answers(1).await
    }

    /// Waits until it answers.
    pub async fn until_it_answers(&self) -> anyhow::Result<()> {
        self.wait_until_it_answers(1).await
    }

    /// Starts the node again after [`Node::kill`] or [`Node::stop`] and waits until it answers.
    pub async fn start(&self) -> anyhow::Result<()> {
        match &self.life {
            Life::Process(process) => process.spawn()?,
            Life::Container(broker) => broker.container().start().await?,
        }
        self.wait_until_it_answers(1).await
    }

    /// SIGKILL.
    pub async fn kill(&self) -> anyhow::Result<()> {
        match &self.life {
            Life::Process(process) => process.kill(),
            Life::Container(broker) => broker.container().kill().await,
        }
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&self) -> anyhow::Result<()> {
        match &self.life {
            Life::Process(process) => process.stop().await,
            Life::Container(broker) => broker.stop().await,
        }
    }

    /// Connections stay open, nothing answers.
    pub async fn freeze(&self) -> anyhow::Result<()> {
        match &self.life {
            Life::Process(process) => process.freeze(),
            Life::Container(broker) => broker.container().pause().await,
        }
    }

    /// It goes on as if no time had passed.
    pub async fn thaw(&self) -> anyhow::Result<()> {
        match &self.life {
            Life::Process(process) => process.thaw(),
            Life::Container(broker) => broker.container().unpause().await,
        }
    }

    /// An open port is not enough: only a metadata answer with our cluster's id says that the broker
    /// works and that it is ours. `brokers` is how many must be known to it.
    pub(super) async fn wait_until_it_answers(&self, brokers: usize) -> anyhow::Result<()> {
        let what = format!("Kafka node {} to answer", self.seat.id);
        wait::until(&what, START_WITHIN, || async {
            if let Some(how) = self.ended().await? {
                return Ok(Seen::NotYet(format!("the node has ended with {how}")));
            }
            let address = self.address();
            let (cluster, known) = tokio::task::spawn_blocking(move || ask(&address)).await??;
            if cluster != self.seat.cluster {
                bail!("port {} is held by another Kafka, of cluster {cluster}", self.seat.port);
            }
            Ok(Seen::when(known, |known| *known >= brokers))
        })
        .await
        .with_context(|| format!("its log is {}", self.log().display()))?;
        Ok(())
    }

    /// How the node ended, or `None` while it runs.
    async fn ended(&self) -> anyhow::Result<Option<String>> {
        match &self.life {
            Life::Process(process) => process.ended(),
            Life::Container(broker) => broker.ended().await,
        }
    }
}

/// The cluster's id and how many brokers it knows, as the broker at `address` says.
fn ask(address: &str) -> anyhow::Result<(String, usize)> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("log_level", "0") // refused connections are expected here
        .create()?;
    let metadata = client.fetch_metadata(None, ANSWER_WITHIN)?;
    let cluster = client
        .client()
        .fetch_cluster_id(ANSWER_WITHIN)
        .context("the broker has no cluster id")?;
    Ok((cluster, metadata.brokers().len()))
}
