//! What Kafka says: topics, ends, the group's offsets, and records, read without joining any group.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use shared::config::KafkaSettings;
use shared::kafka::{Role, client_config};

use super::record::{Record, is_mark};
use super::window::Millis;

/// How long reading may stand still; a broker that restarts is back before.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

/// Which records count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// What the triage service sees: of transactions only those that were committed.
    Committed,
    /// Everything. The publisher writes without transactions, and its records must be seen as soon as they are
    /// acknowledged, also while somebody else's transaction is open on the topic.
    Written,
}

/// The first offset that a partition still has, and the one that comes next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// The lowest offset kept.
    pub low: i64,
    /// One above the highest.
    pub high: i64,
}

/// Records of one partition, from an offset up to another, exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub from: i64,
    /// One above the last.
    pub to: i64,
}

impl Span {
    /// How many offsets it has.
    pub fn len(&self) -> u64 {
        u64::try_from(self.to - self.from).unwrap_or(0)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A client that remembers what went wrong last: the reason of a refused connection is told nowhere else.
#[derive(Debug, Default)]
struct Listening(Mutex<Option<String>>);

impl ClientContext for Listening {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        shared::kafka::log(level, facility, message);
    }

    fn error(&self, _: KafkaError, reason: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }
}

impl ConsumerContext for Listening {}

/// A Kafka cluster. Its calls block.
#[derive(Debug, Clone)]
pub struct Cluster {
    settings: KafkaSettings,
}

impl Cluster {
    /// The cluster of these settings. Nothing is connected yet.
    pub fn new(settings: &KafkaSettings) -> Self {
        Self {
            settings: settings.clone(),
        }
    }

    /// Every topic with its partitions. All are asked for: naming one could create it.
    pub fn topics(&self) -> anyhow::Result<BTreeMap<String, Vec<i32>>> {
        let client = self.client(Visibility::Written)?;
        let metadata = client
            .fetch_metadata(None, self.timeout())
            .map_err(|error| self.trouble(&client, "ask for topics", &error))?;
        let partitions = |topic: &rdkafka::metadata::MetadataTopic| {
            let mut ids: Vec<_> = topic.partitions().iter().map(|partition| partition.id()).collect();
            ids.sort_unstable();
            ids
        };
        let topics = metadata.topics().iter();
        Ok(topics
            .map(|topic| (topic.name().to_owned(), partitions(topic)))
            .collect())
    }

    /// How far these partitions reach.
    pub fn reaches(
        &self,
        topic: &str,
        partitions: &[i32],
        visibility: Visibility,
    ) -> anyhow::Result<BTreeMap<i32, Reach>> {
        let client = self.client(visibility)?;
        let mut reaches = BTreeMap::new();
        for &partition in partitions {
            let (low, high) = client
                .fetch_watermarks(topic, partition, self.timeout())
                .map_err(|error| self.trouble(&client, &format!("ask how far {topic}[{partition}] reaches"), &error))?;
            reaches.insert(partition, Reach { low, high });
        }
        Ok(reaches)
    }

    /// The first offset of each partition whose record was made at a moment or later; partitions without one are left
    /// out.
    pub fn offsets_at(&self, topic: &str, partitions: &[i32], moment: Millis) -> anyhow::Result<BTreeMap<i32, i64>> {
        let client = self.client(Visibility::Written)?;
        let mut asked = TopicPartitionList::new();
        for &partition in partitions {
            asked.add_partition_offset(topic, partition, Offset::Offset(moment))?;
        }
        let answered = client
            .offsets_for_times(asked, self.timeout())
            .map_err(|error| self.trouble(&client, &format!("ask {topic} for offsets by time"), &error))?;
        Ok(offsets(&answered))
    }

    /// Where the group stands. Partitions without a committed offset are left out.
    pub fn committed(&self, topic: &str, partitions: &[i32]) -> anyhow::Result<BTreeMap<i32, i64>> {
        let client = self.client(Visibility::Committed)?;
        let mut asked = TopicPartitionList::new();
        for &partition in partitions {
            asked.add_partition(topic, partition);
        }
        let group = self.settings.group.as_deref().unwrap_or_default();
        let answered = client.committed_offsets(asked, self.timeout()).map_err(|error| {
            self.trouble(
                &client,
                &format!("ask for the offsets of group {group} (kafka.group)"),
                &error,
            )
        })?;
        Ok(offsets(&answered))
    }

    /// Whether a topic is compacted. Unknown where the login may not describe it; then it counts as not compacted.
    pub async fn is_compacted(&self, topic: &str) -> bool {
        let Ok(admin) = client_config(&self.settings, Role::Admin).create::<AdminClient<DefaultClientContext>>() else {
            return false;
        };
        let options = AdminOptions::new().request_timeout(Some(self.timeout()));
        let Ok(answers) = admin
            .describe_configs(&[ResourceSpecifier::Topic(topic)], &options)
            .await
        else {
            return false;
        };
        let policy = |config: rdkafka::admin::ConfigResource| config.get("cleanup.policy")?.value.clone();
        let mut policies = answers.into_iter().flatten().filter_map(policy);
        policies.any(|policy| policy.contains("compact"))
    }

    /// Reads these spans, partition by partition in the order of offsets, until the sink has enough.
    pub fn read(
        &self,
        topic: &str,
        visibility: Visibility,
        spans: &[Span],
        mut sink: impl FnMut(&Record<'_>) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        let mut wanted = TopicPartitionList::new();
        let mut open = HashMap::new();
        for span in spans.iter().filter(|span| !span.is_empty()) {
            wanted.add_partition_offset(topic, span.partition, Offset::Offset(span.from))?;
            open.insert(span.partition, span.to);
        }
        if open.is_empty() {
            return Ok(());
        }
        let client = self.client(visibility)?;
        client.assign(&wanted).with_context(|| format!("read {topic}"))?;
        let mut progress_at = Instant::now();
        let mut last_error = None;
        while !open.is_empty() {
            match client.poll(POLL) {
                Some(Ok(message)) => {
                    progress_at = Instant::now();
                    let Some(&to) = open.get(&message.partition()) else {
                        continue; // fetched before its partition was done
                    };
                    if message.offset() < to && sink(&record_of(&message, topic)).is_break() {
                        return Ok(());
                    }
                    if message.offset() + 1 >= to {
                        open.remove(&message.partition());
                        pause(&client, topic, message.partition());
                    }
                }
                // The last offsets of a partition may be marks of transactions, which are no records.
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
                Some(Err(error)) if is_refused(&error) => {
                    return Err(self.trouble(&client, &format!("read {topic}"), &error));
                }
                // A broker that restarts is away for a while; the deadline below bounds it.
                Some(Err(error)) => last_error = Some(error),
                None => {}
            }
            if progress_at.elapsed() > PROGRESS_WITHIN {
                if let Some(error) = last_error {
                    return Err(self.trouble(&client, &format!("read {topic}"), &error));
                }
                bail!(
                    "reading {topic} has stood still for {PROGRESS_WITHIN:?}; open partitions and their ends: {open:?}"
                );
            }
        }
        Ok(())
    }

    fn client(&self, visibility: Visibility) -> anyhow::Result<BaseConsumer<Listening>> {
        let mut config = client_config(&self.settings, Role::Consumer);
        // Partitions are assigned by hand: the group is asked for its offsets, never joined, never moved.
        config
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        config.set("auto.offset.reset", "earliest"); // retention may remove what is about to be read
        if !self.settings.properties.contains_key("queued.max.messages.kbytes") {
            config.set("queued.max.messages.kbytes", "4096"); // the copy into Postgres is slower than the fetch
        }
        if visibility == Visibility::Written {
            config.set("isolation.level", "read_uncommitted");
        }
        let client = config.create_with_context(Listening::default());
        client.context("make a Kafka client: see kafka.properties, kafka.tls and kafka.sasl")
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.settings.request_timeout_ms)
    }

    fn trouble(&self, client: &BaseConsumer<Listening>, doing: &str, error: &KafkaError) -> anyhow::Error {
        let last = client
            .context()
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let last = last.map(|last| format!(" ({last})")).unwrap_or_default();
        let brokers = &self.settings.brokers;
        anyhow!(
            "Kafka at {brokers} (kafka.brokers): {doing}: {error}{last}; does it answer, do kafka.tls and kafka.sasl \
             fit it, and may this login read the topics and the group?"
        )
    }
}

/// Checks that a topic is there.
///
/// # Errors
/// Names the setting that names the topic.
pub fn expect_topic(topics: &BTreeMap<String, Vec<i32>>, topic: &str, setting: &str) -> anyhow::Result<()> {
    ensure!(
        topics.contains_key(topic),
        "topic {topic} ({setting}) does not exist, or this login may not see it: set {setting} to the topic that the \
         triage service reads"
    );
    Ok(())
}

fn offsets(list: &TopicPartitionList) -> BTreeMap<i32, i64> {
    let known = |offset| match offset {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    };
    let elements = list.elements();
    elements
        .iter()
        .filter_map(|element| Some((element.partition(), known(element.offset())?)))
        .collect()
}

/// What waiting does not mend.
fn is_refused(error: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::UnknownTopic | Code::Authentication
        )
    ) || matches!(error, KafkaError::MessageConsumptionFatal(_))
}

fn pause(client: &BaseConsumer<Listening>, topic: &str, partition: i32) {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition(topic, partition);
    let _ = client.pause(&list); // it only saves what would be fetched and thrown away
}

fn record_of<'m>(message: &'m BorrowedMessage<'_>, topic: &'m str) -> Record<'m> {
    let last = |name: &str| {
        let headers = message.headers()?;
        headers.iter().filter(|header| header.key == name).last()?.value
    };
    Record {
        topic,
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key(),
        value: message.payload(),
        event_id: last("event-id"),
        outbox_id: last("outbox-id"),
        is_marked: message
            .headers()
            .is_some_and(|headers| headers.iter().any(|header| is_mark(header.key))),
    }
}
