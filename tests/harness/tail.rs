//! The other end: whoever consumes the outcomes, deduplicating by `event-id` as the contract asks.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Deserialize;
use uuid::Uuid;

use crate::feed::SentAt;
use crate::topics;

/// A consumer that has heard nothing for so long is replaced; whoever waits, waits longer.
const QUIET_MAX: Duration = Duration::from_secs(8);

/// A consumer of the output topics on its own thread. It ends when this value is dropped.
#[derive(Debug)]
pub struct Tail {
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What was consumed so far.
#[derive(Debug, Default)]
pub struct Seen {
    unique: AtomicU64,
    repeats: AtomicU64,
    latencies_ms: Mutex<Vec<f64>>,
    /// When the first and the last event arrived.
    times: Mutex<Option<(Instant, Instant)>>,
}

impl Seen {
    /// Events, each counted once.
    pub fn unique(&self) -> u64 {
        self.unique.load(Ordering::Relaxed)
    }

    /// Occurrences behind the first of their event.
    pub fn repeats(&self) -> u64 {
        self.repeats.load(Ordering::Relaxed)
    }

    /// From handing an input to its client until its outcome was consumed, of every outcome whose input
    /// was noted.
    pub fn latencies_ms(&self) -> Vec<f64> {
        self.latencies_ms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Time between the first event and the last.
    pub fn lasted(&self) -> Duration {
        let times = *self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.map_or(Duration::ZERO, |(first, last)| last.duration_since(first))
    }
}

impl Tail {
    /// Begins to consume the topics from their beginning; latencies are taken of inputs noted in `sent_at`.
    pub async fn start(brokers: &str, topics: &[&str], sent_at: SentAt) -> anyhow::Result<Self> {
        let mut wanted = TopicPartitionList::new();
        for topic in topics {
            for reach in topics::reaches(brokers, topic).await? {
                wanted.add_partition_offset(topic, reach.partition, Offset::Beginning)?;
            }
        }
        let reader = Reader::new(brokers, wanted)?;
        let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            move || consume(reader, &seen, &sent_at, &stop)
        });
        Ok(Self {
            seen,
            stop,
            thread: Some(thread),
        })
    }

    /// What was consumed, as it counts on.
    pub fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.seen)
    }

    /// Waits until `count` events were consumed, each counted once.
    pub async fn reached(&self, count: u64, within: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.seen.unique() < count {
            if began.elapsed() > within {
                bail!(
                    "{} of {count} events are on the output topic after {within:?}",
                    self.seen.unique()
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed when it happened.
            let _ = thread.join();
        }
    }
}

/// A consumer, and from where another one would go on.
struct Reader {
    config: ClientConfig,
    consumer: BaseConsumer,
    next: TopicPartitionList,
    heard_at: Instant,
}

impl Reader {
    fn new(brokers: &str, from: TopicPartitionList) -> anyhow::Result<Self> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("group.id", "tail-reads-without-a-group")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "50") // the mock cluster answers an empty fetch no sooner
            .set("socket.timeout.ms", "3000") // a broker that hangs would else hold it for a minute
            .set("reconnect.backoff.max.ms", "500") // a broker that was away is noticed soon
            .set("log_level", "0"); // the end of the brokers is no news
        Ok(Self {
            consumer: Self::begin(&config, &from)?,
            config,
            next: from,
            heard_at: Instant::now(),
        })
    }

    fn begin(config: &ClientConfig, from: &TopicPartitionList) -> anyhow::Result<BaseConsumer> {
        let consumer: BaseConsumer = config.create().context("make the consumer of the outcomes")?;
        consumer.assign(from)?;
        Ok(consumer)
    }

    /// What came within a moment, if anything.
    fn read<T>(&mut self, take: impl FnOnce(&BorrowedMessage<'_>) -> T) -> Option<T> {
        // An error is a broker that is away for a moment; whoever waits for a record has a deadline.
        if let Some(Ok(record)) = self.consumer.poll(Duration::from_millis(50)) {
            self.heard_at = Instant::now();
            let next = Offset::Offset(record.offset() + 1);
            let place = self.next.find_partition(record.topic(), record.partition());
            place.expect("it was assigned").set_offset(next).expect("an offset");
            return Some(take(&record));
        }
        // A client may have forgotten every broker when a single one was away for a moment (librdkafka's issue
        // 5301); the services notice it by their statistics.
        if self.heard_at.elapsed() > QUIET_MAX {
            self.heard_at = Instant::now();
            match Self::begin(&self.config, &self.next) {
                Ok(consumer) => self.consumer = consumer,
                Err(error) => eprintln!("the consumer of the outcomes is not made anew: {error:#}"),
            }
        }
        None
    }
}

fn consume(mut reader: Reader, seen: &Seen, sent_at: &SentAt, stop: &AtomicBool) {
    let mut ids = HashSet::new();
    while !stop.load(Ordering::Acquire) {
        let Some((event_id, source)) = reader.read(|record| (event_id(record), source_event_id(record.payload())))
        else {
            continue;
        };
        let now = Instant::now();
        let Some(event_id) = event_id else { continue };
        if !ids.insert(event_id) {
            seen.repeats.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        {
            let mut times = seen.times.lock().unwrap_or_else(PoisonError::into_inner);
            *times = Some((times.map_or(now, |(first, _)| first), now));
        }
        if let Some(at) = source.and_then(|id| sent_at.take(&id)) {
            let latency = now.duration_since(at).as_secs_f64() * 1_000.0;
            seen.latencies_ms
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(latency);
        }
        seen.unique.fetch_add(1, Ordering::Relaxed);
    }
}

fn event_id(record: &BorrowedMessage<'_>) -> Option<Uuid> {
    let header = record.headers()?.iter().find(|header| header.key == "event-id")?;
    Uuid::parse_str(std::str::from_utf8(header.value?).ok()?).ok()
}

/// The input that an outcome is about; a dead letter is somebody else's bytes and has none.
fn source_event_id(value: Option<&[u8]>) -> Option<String> {
    #[derive(Deserialize)]
    struct Outcome {
        meta: Meta,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta {
        source_event_id: String,
    }
    serde_json::from_slice::<Outcome>(value?)
        .ok()
        .map(|outcome| outcome.meta.source_event_id)
}
