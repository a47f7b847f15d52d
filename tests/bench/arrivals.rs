//! When each event comes out of a topic.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Deserialize;
use uuid::Uuid;

use crate::site::PARTITIONS;

/// Which event a record tells of.
pub type IdOf = fn(&BorrowedMessage<'_>) -> Option<Uuid>;

/// Notes when each event comes out of a topic, on a thread of its own.
pub struct Arrivals {
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<HashMap<Uuid, Instant>>,
}

impl Arrivals {
    /// Begins at the topic's beginning.
    ///
    /// # Errors
    /// If the consumer cannot be made.
    pub fn of(brokers: &str, topic: &str, id_of: IdOf) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "bench-reads-without-a-group")
            .set("enable.auto.commit", "false")
            .set("fetch.queue.backoff.ms", "1")
            .create()
            .context("make the consumer that notes arrivals")?;
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            all.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        let (count, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (count, stop) = (Arc::clone(&count), Arc::clone(&stop));
            move || note(&consumer, id_of, &count, &stop)
        });
        Ok(Self { count, stop, thread })
    }

    /// Waits until so many events have come, and says when each did, the first time.
    ///
    /// # Errors
    /// If they do not come in time.
    pub async fn all(self, events: u64, within: Duration) -> anyhow::Result<HashMap<Uuid, Instant>> {
        let deadline = Instant::now() + within;
        while self.count.load(Ordering::Relaxed) < events && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.stop.store(true, Ordering::Relaxed);
        let Ok(arrived) = tokio::task::block_in_place(|| self.thread.join()) else {
            bail!("the thread that notes arrivals panicked");
        };
        if (arrived.len() as u64) < events {
            bail!("{} of {events} events have come within {within:?}", arrived.len());
        }
        Ok(arrived)
    }
}

fn note(consumer: &BaseConsumer, id_of: IdOf, count: &AtomicU64, stop: &AtomicBool) -> HashMap<Uuid, Instant> {
    let mut arrived = HashMap::new();
    while !stop.load(Ordering::Relaxed) {
        // An error is a connection that is made again; whoever waits has a deadline.
        let Some(Ok(record)) = consumer.poll(Duration::from_millis(50)) else {
            continue;
        };
        let now = Instant::now();
        if let Some(id) = id_of(&record) {
            arrived.entry(id).or_insert(now);
            count.store(arrived.len() as u64, Ordering::Relaxed);
        }
    }
    arrived
}

/// The id in the header `event-id`.
pub fn event_id(record: &BorrowedMessage<'_>) -> Option<Uuid> {
    let header = record.headers()?.iter().find(|header| header.key == "event-id")?;
    Uuid::try_parse_ascii(header.value?).ok()
}

/// The id of the input that an outcome is about.
pub fn source_event_id(record: &BorrowedMessage<'_>) -> Option<Uuid> {
    #[derive(Deserialize)]
    struct Outcome {
        meta: Meta,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta {
        source_event_id: Uuid,
    }
    let outcome: Outcome = serde_json::from_slice(record.payload()?).ok()?;
    Some(outcome.meta.source_event_id)
}
