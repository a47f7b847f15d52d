//! A producer whose acknowledgements are counted.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};
use shared::config::KafkaSettings;
use shared::kafka::{Role, client_config};
use uuid::Uuid;

/// How long acknowledgements may stay away.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);

/// Sends with the services' own settings of a producer.
pub(super) struct Sender {
    producer: ThreadedProducer<Acks>,
    acks: Acks,
    topic: String,
    sent: u64,
}

#[derive(Debug, Clone, Default)]
struct Acks(Arc<(Mutex<Counts>, Condvar)>);

#[derive(Debug, Default)]
struct Counts {
    acknowledged: u64,
    wanted: u64,
    refused: Option<String>,
}

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let (counts, changed) = &*self.0;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(_) => counts.acknowledged += 1,
            Err((error, _)) => counts.refused = Some(error.to_string()),
        }
        if counts.acknowledged >= counts.wanted || counts.refused.is_some() {
            changed.notify_one();
        }
    }
}

/// What is sent.
pub(super) struct Event<'a> {
    pub(super) event_type: &'a str,
    pub(super) key: Option<&'a [u8]>,
    pub(super) payload: Option<&'a [u8]>,
}

fn headers(id: i64, event_id: Uuid, event_type: &str) -> OwnedHeaders {
    let (id, mut buffer) = (id.to_string(), Uuid::encode_buffer());
    let all = [
        ("event-id", &*event_id.hyphenated().encode_lower(&mut buffer)),
        ("event-type", event_type),
        ("content-type", "application/json"),
        ("outbox-id", &id),
        ("outbox-epoch", "1"),
    ];
    all.into_iter()
        .fold(OwnedHeaders::new_with_capacity(all.len()), |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        })
}

impl Sender {
    /// One that waits `linger_ms` for more records before it sends.
    pub(super) fn new(brokers: &str, topic: &str, linger_ms: u32) -> anyhow::Result<Self> {
        let settings = KafkaSettings {
            brokers: brokers.to_owned(),
            ..KafkaSettings::default()
        };
        let acks = Acks::default();
        let producer = client_config(&settings, Role::Producer)
            .set("linger.ms", linger_ms.to_string())
            .create_with_context(acks.clone())
            .context("make a producer")?;
        Ok(Self {
            producer,
            acks,
            topic: topic.to_owned(),
            sent: 0,
        })
    }

    /// Hands a record to the client, with the headers that the contract asks for: the same bytes as ours have.
    pub(super) fn send(&mut self, id: i64, event_id: Uuid, event: Event<'_>) -> anyhow::Result<()> {
        let mut next = BaseRecord::<[u8], [u8]>::to(&self.topic).headers(headers(id, event_id, event.event_type));
        (next.key, next.payload) = (event.key, event.payload);
        let began = Instant::now();
        loop {
            match self.producer.send(next) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    ensure!(began.elapsed() < ACKNOWLEDGED_WITHIN, "the queue stays full");
                    next = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
        self.sent += 1;
        Ok(())
    }

    /// Waits until everything that was sent is acknowledged. It blocks.
    pub(super) fn until_acknowledged(&self) -> anyhow::Result<()> {
        let (counts, changed) = &*self.acks.0;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.wanted = self.sent;
        let (counts, waited) = changed
            .wait_timeout_while(counts, ACKNOWLEDGED_WITHIN, |counts| {
                counts.acknowledged < counts.wanted && counts.refused.is_none()
            })
            .unwrap_or_else(PoisonError::into_inner);
        match &counts.refused {
            Some(reason) => bail!("a record was refused: {reason}"),
            None => ensure!(!waited.timed_out(), "records are not acknowledged"),
        }
        Ok(())
    }
}

/// Sends one record at a time, and waits for it.
pub struct RoundTrip(Sender);

impl RoundTrip {
    /// To a topic.
    ///
    /// # Errors
    /// If the producer cannot be made.
    pub fn new(brokers: &str, topic: &str) -> anyhow::Result<Self> {
        Sender::new(brokers, topic, 0).map(Self)
    }

    /// Sends one of 300 bytes and returns when it is acknowledged. It blocks its thread.
    ///
    /// # Errors
    /// If it is refused.
    pub fn one(&mut self) -> anyhow::Result<()> {
        let event = Event {
            event_type: "bench.row-written",
            key: None,
            payload: Some(&[b'x'; 300]),
        };
        self.0.send(1, Uuid::nil(), event)?;
        self.0.until_acknowledged()
    }
}
