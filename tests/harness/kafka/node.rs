//! One broker as a process: its properties, its start, its end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{Hop, Kafka, KafkaOptions};
use crate::children::{Guarded, Signal};
use crate::wait::{self, Seen};
use crate::{folders, ports};

/// How long formatting, or a start until a metadata answer, may take on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(90);
/// How long an orderly stop may take: the node hands its partitions over first.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// How long a client waits for one metadata answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// One broker, which is also a controller.
#[derive(Debug)]
pub struct Node {
    id: usize,
    port: u16,
    /// By route: the port that the broker listens at, and the one it tells clients to come to.
    detours: Vec<Hop>,
    cluster: String,
    folder: PathBuf,
    log: PathBuf,
    for_speed: bool,
    process: Mutex<Option<Guarded>>,
}

impl Node {
    /// A node with ports and a folder of its own, not started.
    pub(super) fn new(id: usize, name: &str, cluster: &str, options: &KafkaOptions) -> anyhow::Result<Self> {
        let hop = |_| {
            Ok(Hop {
                listen: ports::free()?,
                upstream: ports::free()?,
            })
        };
        Ok(Self {
            id,
            port: ports::free()?,
            detours: (0..options.routes).map(hop).collect::<anyhow::Result<_>>()?,
            cluster: cluster.to_owned(),
            folder: folders::data(name)?,
            log: folders::logs()?.join(format!("{name}.log")),
            for_speed: options.for_speed,
            process: Mutex::new(None),
        })
    }

    /// Its part of a way through proxies.
    pub(super) fn hop(&self, route: usize) -> Hop {
        self.detours[route]
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The broker's id in metadata.
    pub fn id(&self) -> usize {
        self.id
    }

    /// The broker's log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Starts the node again after [`Node::kill`] or [`Node::stop`] and waits until it answers.
    pub async fn start(&self) -> anyhow::Result<()> {
        self.spawn()?;
        self.wait_until_it_answers(1).await
    }

    /// SIGKILL.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.take()?.kill()?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&self) -> anyhow::Result<()> {
        let process = self.take()?;
        process.signal(Signal::Terminate)?;
        process.wait(STOP_WITHIN).await?;
        Ok(())
    }

    /// SIGSTOP: connections stay open, nothing answers.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::Freeze)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::Thaw)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let held = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref()
            .with_context(|| format!("Kafka node {} does not run", self.id))?
            .signal(signal)
    }

    fn take(&self) -> anyhow::Result<Guarded> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        process.with_context(|| format!("Kafka node {} does not run", self.id))
    }

    pub(super) fn properties(&self, controller: u16, voters: &str, options: &KafkaOptions) -> String {
        let replicas = options.nodes;
        let majority = replicas / 2 + 1;
        let mut listeners = format!(
            "PLAINTEXT://127.0.0.1:{},CONTROLLER://127.0.0.1:{controller}",
            self.port
        );
        let mut advertised = format!("PLAINTEXT://127.0.0.1:{}", self.port);
        let mut protocols = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".to_owned();
        for (number, hop) in self.detours.iter().enumerate() {
            listeners += &format!(",VIA{number}://127.0.0.1:{}", hop.upstream);
            advertised += &format!(",VIA{number}://127.0.0.1:{}", hop.listen);
            protocols += &format!(",VIA{number}:PLAINTEXT");
        }
        let mut properties = vec![
            ("process.roles", "broker,controller".to_owned()),
            ("node.id", self.id.to_string()),
            ("controller.quorum.voters", voters.to_owned()),
            ("listeners", listeners),
            ("advertised.listeners", advertised),
            ("listener.security.protocol.map", protocols),
            ("controller.listener.names", "CONTROLLER".to_owned()),
            ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
            ("log.dirs", self.folder.join("log").display().to_string()),
            ("num.network.threads", "2".to_owned()),
            ("offsets.topic.replication.factor", replicas.to_string()),
            ("offsets.topic.num.partitions", "5".to_owned()),
            ("transaction.state.log.replication.factor", replicas.to_string()),
            ("transaction.state.log.min.isr", majority.to_string()),
            ("transaction.state.log.num.partitions", "3".to_owned()),
            ("share.coordinator.state.topic.replication.factor", replicas.to_string()),
            ("share.coordinator.state.topic.min.isr", majority.to_string()),
            ("group.initial.rebalance.delay.ms", "0".to_owned()),
            ("auto.create.topics.enable", "false".to_owned()),
            // A killed node stands in its own way until its session is over: 9 s by Kafka's default.
            ("broker.session.timeout.ms", "3000".to_owned()),
            ("broker.heartbeat.interval.ms", "500".to_owned()),
        ];
        // The last mention of a name would win silently; ours give way instead.
        properties.retain(|(name, _)| !options.properties.iter().any(|(other, _)| other == name));
        let own = properties.into_iter().map(|(name, value)| format!("{name}={value}\n"));
        let asked = options
            .properties
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"));
        own.chain(asked).collect()
    }

    pub(super) async fn format(&self, properties: &str) -> anyhow::Result<()> {
        fs::write(self.properties_file(), properties).context("write server.properties")?;
        let mut command = self.java()?;
        command
            .args(["-XX:TieredStopAtLevel=1", "-cp"])
            .arg(class_path())
            .arg("kafka.tools.StorageTool");
        command
            .args(["format", "-t", &self.cluster, "-c"])
            .arg(self.properties_file());
        let status = Guarded::spawn("Kafka's StorageTool", command, Signal::Kill)?
            .wait(START_WITHIN)
            .await?;
        ensure!(
            status.success(),
            "Kafka's StorageTool ended with {status}; its log is {}",
            self.log.display()
        );
        Ok(())
    }

    pub(super) fn spawn(&self) -> anyhow::Result<()> {
        let mut command = self.java()?;
        if self.for_speed {
            command.args(["-Xms512m", "-Xmx1g"]);
        } else {
            command.args(["-Xms256m", "-Xmx768m", "-XX:TieredStopAtLevel=1"]);
        }
        command
            .args(["-XX:+UseSerialGC", "-Xshare:auto", "-cp"])
            .arg(class_path());
        command.arg("kafka.Kafka").arg(self.properties_file());
        let process = Guarded::spawn(&format!("Kafka node {}", self.id), command, Signal::Kill)?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        Ok(())
    }

    fn java(&self) -> anyhow::Result<Command> {
        let java = find_on_path("java").context("no java on the PATH; `.ci/install kafka` installs it")?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("open {}", self.log.display()))?;
        let mut command = Command::new(java);
        command.current_dir(&self.folder).stdin(std::process::Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    fn properties_file(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    /// An open port is not enough: only a metadata answer with our cluster's id says that the broker
    /// works and that it is ours. `brokers` is how many must be known to it.
    pub(super) async fn wait_until_it_answers(&self, brokers: usize) -> anyhow::Result<()> {
        wait::until(&format!("Kafka node {} to answer", self.id), START_WITHIN, || async {
            if let Some(process) = &*self.process.lock().unwrap_or_else(PoisonError::into_inner)
                && let Some(status) = process.ended()?
            {
                return Ok(Seen::NotYet(format!("the node has ended with {status}")));
            }
            let address = self.address();
            let (cluster, known) = tokio::task::spawn_blocking(move || ask(&address)).await??;
            if cluster != self.cluster {
                bail!("port {} is held by another Kafka, of cluster {cluster}", self.port);
            }
            Ok(Seen::when(known, |known| *known >= brokers))
        })
        .await
        .with_context(|| format!("its log is {}", self.log.display()))?;
        Ok(())
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

/// Java expands the star itself.
fn class_path() -> PathBuf {
    Kafka::jars().join("*")
}

pub(super) fn find_on_path(binary: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(binary))
        .find(|file| file.is_file())
}
