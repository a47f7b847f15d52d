//! The stream of input records, written at a steady rate until it is told to stop.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use serde::Deserialize;

use crate::input::{Inputs, Kind};
use crate::invariants::Verdict;
use crate::topics::Record;

/// Pause between two bursts; a burst is what the rate owes since the last.
const BURST_PAUSE: Duration = Duration::from_millis(20);
/// How long the brokers may take to answer for the last records.
const FLUSH_WITHIN: Duration = Duration::from_secs(60);

/// When each event was handed to the client, by its id as it is written. Whoever sees its outcome takes
/// it out.
#[derive(Debug, Clone, Default)]
pub struct SentAt(Arc<Mutex<HashMap<String, Instant>>>);

impl SentAt {
    /// Remembers that the event of this record is sent now.
    pub fn note(&self, value: Option<&[u8]>) {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Id {
            event_id: String,
        }
        if let Some(Id { event_id }) = value.and_then(|value| serde_json::from_slice(value).ok()) {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(event_id, Instant::now());
        }
    }

    /// When it was sent, once.
    pub fn take(&self, event_id: &str) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(event_id)
    }

    /// Events that nobody has taken out yet.
    pub fn left(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// An idempotent producer that counts what was acknowledged and what was refused.
pub struct Writer {
    producer: ThreadedProducer<Reports>,
    topic: String,
}

/// Delivery reports, counted.
#[derive(Debug, Clone, Default)]
pub struct Reports {
    acknowledged: Arc<AtomicU64>,
    refused: Arc<Mutex<Option<KafkaError>>>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => drop(self.acknowledged.fetch_add(1, Ordering::Relaxed)),
            Err((error, _)) => *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone()),
        }
    }
}

impl Writer {
    /// A writer to one topic.
    pub fn new(brokers: &str, topic: &str) -> anyhow::Result<Self> {
        Self::with(brokers, topic, &[])
    }

    /// A writer to one topic of brokers that are broken meanwhile: it notices soon that one hangs or is back.
    pub fn impatient(brokers: &str, topic: &str) -> anyhow::Result<Self> {
        let soon = [
            ("socket.timeout.ms", "3000"),
            ("request.timeout.ms", "2000"),
            ("reconnect.backoff.max.ms", "500"),
            ("retry.backoff.max.ms", "500"),
        ];
        Self::with(brokers, topic, &soon)
    }

    /// A writer to one topic that gathers records for five milliseconds, as Kafka's own producer does by default since
    /// 4.0. What each record alone costs a broker is then not in what is measured beside it.
    pub fn gathering(brokers: &str, topic: &str) -> anyhow::Result<Self> {
        Self::with(brokers, topic, &[("linger.ms", "5")])
    }

    fn with(brokers: &str, topic: &str, properties: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "0")
            .set("socket.timeout.ms", "10000"); // a network that swallows packets would else hold it for a minute
        for (name, value) in properties {
            config.set(*name, *value);
        }
        let producer = config
            .create_with_context(Reports::default())
            .context("make the feeder's producer")?;
        Ok(Self {
            producer,
            topic: topic.to_owned(),
        })
    }

    /// Hands one record to the client, waiting where its queue is full.
    pub fn send(&self, record: &Record) -> anyhow::Result<()> {
        let mut next = BaseRecord::<[u8], [u8]>::to(&self.topic);
        next.key = record.key.as_deref();
        next.payload = record.value.as_deref();
        next.partition = record.partition;
        let began = Instant::now();
        loop {
            match self.producer.send(next) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    ensure!(began.elapsed() < FLUSH_WITHIN, "the queue to {} stays full", self.topic);
                    next = back;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error).with_context(|| format!("write to {}", self.topic)),
            }
        }
    }

    /// Waits until every record is acknowledged.
    pub fn flush(&self) -> anyhow::Result<()> {
        self.producer
            .flush(FLUSH_WITHIN)
            .with_context(|| format!("write to {}", self.topic))?;
        match &*self
            .producer
            .context()
            .refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
        {
            None => Ok(()),
            Some(error) => bail!("a record was refused by {}: {error}", self.topic),
        }
    }
}

/// How much is written, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Records a second.
    pub rate: u64,
    /// Records in all, at most.
    pub most: u64,
}

/// A feeder on its own thread.
#[derive(Debug)]
pub struct Feeder {
    thread: JoinHandle<anyhow::Result<BTreeMap<Kind, u64>>>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Feeder {
    /// Begins to write. What is to be decided is noted in `sent_at`, for whoever takes it out again.
    pub fn start(writer: Writer, inputs: Inputs, pace: Pace, sent_at: Option<SentAt>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::clone(&writer.producer.context().acknowledged);
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || write(&writer, inputs, pace, sent_at.as_ref(), &stopped));
        Self {
            thread,
            stop,
            acknowledged,
        }
    }

    /// Records that the topic has, as it counts on.
    pub fn acknowledged(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.acknowledged)
    }

    /// Whether the stream has ended by itself: it was long enough, or it failed.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the stream and returns how many records of each kind were written.
    pub async fn stop(self) -> anyhow::Result<BTreeMap<Kind, u64>> {
        self.stop.store(true, Ordering::Release);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await?;
        joined.unwrap_or_else(|_| bail!("the feeder panicked"))
    }
}

fn write(
    writer: &Writer,
    mut inputs: Inputs,
    pace: Pace,
    sent_at: Option<&SentAt>,
    stop: &AtomicBool,
) -> anyhow::Result<BTreeMap<Kind, u64>> {
    let mut written = BTreeMap::new();
    let mut count = 0;
    let began = Instant::now();
    while !stop.load(Ordering::Acquire) && count < pace.most {
        let owed = (began.elapsed().as_secs_f64() * pace.rate as f64) as u64;
        while count < owed.min(pace.most) {
            let input = inputs.next().context("the stream has no end")?;
            if let Some(sent_at) = sent_at
                && input.kind.is_decided()
            {
                sent_at.note(input.record.value.as_deref());
            }
            writer.send(&input.record)?;
            *written.entry(input.kind).or_default() += 1;
            count += 1;
        }
        std::thread::sleep(BURST_PAUSE);
    }
    writer.flush()?;
    Ok(written)
}

/// Adds to the verdict where it differs from what the feeder knows to have written. The judge does not
/// know the stream; the feeder does not know the tables.
pub fn compare(verdict: &mut Verdict, written: &BTreeMap<Kind, u64>) {
    let count = |is_meant: fn(Kind) -> bool| -> u64 {
        written
            .iter()
            .filter(|(kind, _)| is_meant(**kind))
            .map(|(_, count)| *count)
            .sum()
    };
    let pairs = [
        ("records on the input topic", verdict.records_in, count(|_| true)),
        (
            "events decided",
            verdict.decisions.values().sum(),
            count(Kind::is_decided),
        ),
        (
            "records dead-lettered",
            verdict.dead_lettered,
            count(Kind::is_dead_lettered),
        ),
        (
            "duplicates suppressed",
            verdict.duplicates_suppressed,
            count(|kind| matches!(kind, Kind::Duplicate | Kind::Resend)),
        ),
    ];
    for (what, found, expected) in pairs {
        if found != expected {
            verdict
                .problems
                .push(format!("{what}: {found} were found, {expected} were written"));
        }
    }
}
