//! When the broker took each event of a topic, by the broker's own stamps, read when all is over: a reader beside
//! what is measured would be a part of it.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Deserialize;
use uuid::Uuid;

use crate::site::PARTITIONS;

/// The setting of a topic whose records bear the broker's time.
pub const BY_BROKER: (&str, &str) = ("message.timestamp.type", "LogAppendTime");
/// A stamp is in whole milliseconds, rounded down: the record was appended before the next one.
const STAMP_US: i64 = 1_000;
/// How long a topic that has all records may send none.
const SILENCE: Duration = Duration::from_secs(20);

/// Which event a record tells of.
pub type IdOf = fn(&BorrowedMessage<'_>) -> Option<Uuid>;

/// Microseconds since 1970 of moments of this process, for comparison with the broker's on the same machine.
#[derive(Debug, Clone, Copy)]
pub struct Calendar {
    at: Instant,
    unix_us: i64,
}

impl Calendar {
    /// Of a run that begins now.
    ///
    /// # Errors
    /// If the system's clock stands before 1970.
    pub fn new() -> anyhow::Result<Self> {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("the system's clock")?;
        Ok(Self {
            at: Instant::now(),
            unix_us: unix.as_micros() as i64,
        })
    }

    /// When that was.
    pub fn unix_us(self, moment: Instant) -> i64 {
        self.unix_us + moment.saturating_duration_since(self.at).as_micros() as i64
    }
}

/// Microseconds since 1970 at which so many events were appended at the latest, each the first time.
///
/// # Errors
/// If some are not there.
pub fn read(brokers: &str, topic: &str, events: usize, id_of: IdOf) -> anyhow::Result<HashMap<Uuid, i64>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "bench-reads-without-a-group")
        .set("enable.auto.commit", "false")
        .create()
        .context("make a consumer")?;
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let mut appended = HashMap::with_capacity(events);
    let mut heard = Instant::now();
    while appended.len() < events {
        let Some(record) = consumer.poll(Duration::from_millis(100)) else {
            if heard.elapsed() > SILENCE {
                bail!("{} of {events} events are on {topic}", appended.len());
            }
            continue;
        };
        let record = record?;
        heard = Instant::now();
        if let (Some(id), Some(stamp)) = (id_of(&record), record.timestamp().to_millis()) {
            appended.entry(id).or_insert(stamp * 1_000 + STAMP_US);
        }
    }
    Ok(appended)
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
