//! Records written, read back, and the offsets of a group.

mod read;
mod write;

use std::time::Duration;

use anyhow::{Context, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataPartition;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::wait::{self, Seen};

/// How long one request may take, a broker's restart included.
const REQUEST_WITHIN: Duration = Duration::from_secs(30);
/// How long writing or reading a topic may stand still.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);

/// A record to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Null where `None`.
    pub key: Option<Vec<u8>>,
    /// A tombstone where `None`.
    pub value: Option<Vec<u8>>,
    /// Names and values, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970; the client's clock where `None`.
    pub timestamp: Option<i64>,
    /// Where `None`, by the key as Java's producer does it.
    pub partition: Option<i32>,
}

impl Record {
    /// A record with a key and a value.
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self {
            key: Some(key.into()),
            value: Some(value.into()),
            ..Self::default()
        }
    }
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key; `None` is null.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its timestamp in milliseconds since 1970.
    pub timestamp: Option<i64>,
}

impl Read {
    /// The first header of this name, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(other, _)| other == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }
}

/// How far a partition reaches: the first offset that is kept and the one that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Its partition.
    pub partition: i32,
    /// The lowest offset still kept.
    pub low: i64,
    /// One above the highest.
    pub high: i64,
}

/// Where a group stands in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Its partition.
    pub partition: i32,
    /// The committed offset, if there is one.
    pub offset: Option<i64>,
    /// One above the highest offset of the partition.
    pub high: i64,
}

impl Committed {
    /// Whether nothing is left to read; an empty partition needs no commit.
    pub fn is_at_end(&self) -> bool {
        self.offset.unwrap_or(0) >= self.high
    }
}

/// Makes a topic and waits until each partition has a leader.
pub async fn create(
    brokers: &str,
    name: &str,
    partitions: i32,
    replicas: i32,
    settings: &[(&str, &str)],
) -> anyhow::Result<()> {
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let answers = admin(brokers)?.create_topics([&topic], &patient()).await?;
    refused(answers).with_context(|| format!("make topic {name}"))?;
    until_led(brokers, name, partitions).await
}

/// Adds partitions, so that there are so many, and waits until each has a leader.
pub async fn add_partitions(brokers: &str, name: &str, partitions: i32) -> anyhow::Result<()> {
    let wanted = NewPartitions::new(name, usize::try_from(partitions)?);
    let answers = admin(brokers)?.create_partitions([&wanted], &patient()).await?;
    refused(answers).with_context(|| format!("add partitions to {name}"))?;
    until_led(brokers, name, partitions).await
}

async fn until_led(brokers: &str, name: &str, partitions: i32) -> anyhow::Result<()> {
    let expected = usize::try_from(partitions)?;
    wait::until(&format!("topic {name} to have leaders"), REQUEST_WITHIN, || async {
        let (brokers, name) = (brokers.to_owned(), name.to_owned());
        let leaders = blocking(move || {
            let metadata = reader(&brokers)?.fetch_metadata(Some(&name), REQUEST_WITHIN)?;
            let topic = metadata.topics().first().context("metadata names the topic")?;
            Ok(topic
                .partitions()
                .iter()
                .filter(|partition| partition.leader() >= 0)
                .count())
        });
        Ok(Seen::when(leaders.await?, |leaders| *leaders == expected))
    })
    .await?;
    Ok(())
}

/// Waits until each partition has a leader and all of its replicas are in sync.
pub async fn until_in_sync(brokers: &str, name: &str, replicas: usize, within: Duration) -> anyhow::Result<()> {
    let what = format!("all replicas of {name} to be in sync");
    wait::until(&what, within, || async {
        let (brokers, name) = (brokers.to_owned(), name.to_owned());
        let behind = blocking(move || {
            let metadata = reader(&brokers)?.fetch_metadata(Some(&name), REQUEST_WITHIN)?;
            let topic = metadata.topics().first().context("metadata names the topic")?;
            let is_behind = |partition: &&MetadataPartition| partition.leader() < 0 || partition.isr().len() < replicas;
            Ok(topic.partitions().iter().filter(is_behind).count())
        });
        Ok(match behind.await? {
            0 => Seen::Yes(()),
            count => Seen::NotYet(format!("{count} partitions lack a replica")),
        })
    })
    .await
}

/// Deletes a topic.
pub async fn delete(brokers: &str, name: &str) -> anyhow::Result<()> {
    refused(admin(brokers)?.delete_topics(&[name], &patient()).await?).with_context(|| format!("delete topic {name}"))
}

/// Removes the records below these offsets of partitions, as retention does.
pub async fn remove_before(brokers: &str, name: &str, offsets: &[(i32, i64)]) -> anyhow::Result<()> {
    let mut cuts = TopicPartitionList::new();
    for &(partition, before) in offsets {
        cuts.add_partition_offset(name, partition, Offset::Offset(before))?;
    }
    let answered = admin(brokers)?.delete_records(&cuts, &patient()).await?;
    for element in answered.elements() {
        element
            .error()
            .with_context(|| format!("remove records of {name}[{}]", element.partition()))?;
    }
    Ok(())
}

/// Sets settings of a topic **and resets all others to their defaults**: so only for topics of our own.
pub async fn alter(brokers: &str, name: &str, settings: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut change = AlterConfig::new(ResourceSpecifier::Topic(name));
    for (key, value) in settings {
        change = change.set(key, value);
    }
    for answer in admin(brokers)?.alter_configs([&change], &patient()).await? {
        if let Err((_, code)) = answer {
            bail!("topic {name} keeps its settings: {code}");
        }
    }
    Ok(())
}

/// Writes records with an idempotent producer, in order per partition, and returns where each one lies.
pub async fn produce(brokers: &str, topic: &str, records: Vec<Record>) -> anyhow::Result<Vec<(i32, i64)>> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    blocking(move || write::Writer::new(&brokers)?.write(&topic, &records)).await
}

/// Reads a whole topic, from the beginning to the end that it had when the reading began, by partition
/// and offset.
pub async fn read_all(brokers: &str, topic: &str) -> anyhow::Result<Vec<Read>> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    blocking(move || {
        let reaches = reaches_of(&reader(&brokers)?, &topic)?;
        read::read_between(&brokers, &topic, &reaches)
    })
    .await
}

/// How far each partition reaches.
pub async fn reaches(brokers: &str, topic: &str) -> anyhow::Result<Vec<Reach>> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    blocking(move || reaches_of(&reader(&brokers)?, &topic)).await
}

/// Where a group stands in each partition of a topic.
pub async fn committed(brokers: &str, group: &str, topic: &str) -> anyhow::Result<Vec<Committed>> {
    let (brokers, group, topic) = (brokers.to_owned(), group.to_owned(), topic.to_owned());
    blocking(move || {
        let client: BaseConsumer = reader_config(&brokers).set("group.id", &group).create()?;
        let reaches = reaches_of(&client, &topic)?;
        let mut asked = TopicPartitionList::new();
        for reach in &reaches {
            asked.add_partition(&topic, reach.partition);
        }
        let answered = client.committed_offsets(asked, REQUEST_WITHIN)?;
        reaches
            .iter()
            .map(|reach| {
                let element = answered
                    .find_partition(&topic, reach.partition)
                    .with_context(|| format!("the answer names partition {}", reach.partition))?;
                let offset = match element.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                };
                Ok(Committed {
                    partition: reach.partition,
                    offset,
                    high: reach.high,
                })
            })
            .collect()
    })
    .await
}

fn reaches_of(client: &BaseConsumer, topic: &str) -> anyhow::Result<Vec<Reach>> {
    let metadata = client.fetch_metadata(Some(topic), REQUEST_WITHIN)?;
    let described = metadata.topics().first().context("metadata names the topic")?;
    if let Some(error) = described.error() {
        bail!("topic {topic}: {}", RDKafkaErrorCode::from(error));
    }
    let mut reaches = described
        .partitions()
        .iter()
        .map(|partition| {
            let (low, high) = client.fetch_watermarks(topic, partition.id(), REQUEST_WITHIN)?;
            Ok(Reach {
                partition: partition.id(),
                low,
                high,
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    reaches.sort_by_key(|reach| reach.partition);
    Ok(reaches)
}

fn reader(brokers: &str) -> anyhow::Result<BaseConsumer> {
    reader_config(brokers).create().context("make a consumer")
}

fn reader_config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("group.id", "harness-reads-without-a-group")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("log_level", "0"); // a broker that the test has stopped is no news
    config
}

fn admin(brokers: &str) -> anyhow::Result<AdminClient<DefaultClientContext>> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .context("make an admin client")
}

fn patient() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(REQUEST_WITHIN))
        .operation_timeout(Some(REQUEST_WITHIN))
}

fn refused(answers: Vec<Result<String, (String, RDKafkaErrorCode)>>) -> anyhow::Result<()> {
    for answer in answers {
        if let Err((topic, code)) = answer {
            bail!("{topic}: {code}");
        }
    }
    Ok(())
}

/// librdkafka's calls block, and so do its clients when they are dropped.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("a call to Kafka panicked")?
}
