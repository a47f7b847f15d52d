//! Writing records, and where each one lies.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use super::{PROGRESS_WITHIN, Record};

/// A producer that remembers what was acknowledged.
pub(super) struct Writer {
    producer: ThreadedProducer<Reports>,
}

/// Where a record lies, or why it does not.
type Place = Result<(i32, i64), KafkaError>;

/// The place of each record, by its number. A record without an answer stays `None`.
#[derive(Default, Clone)]
struct Reports {
    places: Arc<Mutex<Vec<Option<Place>>>>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Self::DeliveryOpaque) {
        let place = match result {
            Ok(record) => Ok((record.partition(), record.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        self.places.lock().unwrap_or_else(PoisonError::into_inner)[*number] = Some(place);
    }
}

impl Writer {
    pub(super) fn new(brokers: &str) -> anyhow::Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "2")
            .set("message.max.bytes", "16777216") // the topic's own limit is the one that counts
            .create_with_context(Reports::default())
            .context("make a producer")?;
        Ok(Self { producer })
    }

    /// Writes all of them and waits until each is answered.
    pub(super) fn write(self, topic: &str, records: &[Record]) -> anyhow::Result<Vec<(i32, i64)>> {
        let reports = self.producer.context().clone();
        reports
            .places
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .resize_with(records.len(), || None);
        for (number, record) in records.iter().enumerate() {
            self.send(topic, number, record)?;
        }
        self.producer
            .flush(PROGRESS_WITHIN)
            .with_context(|| format!("write to {topic}"))?;
        let mut places = reports.places.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *places)
            .into_iter()
            .enumerate()
            .map(|(number, place)| {
                let place = place.with_context(|| format!("record {number} was not answered"))?;
                place.with_context(|| format!("record {number} was refused by {topic}"))
            })
            .collect()
    }

    fn send(&self, topic: &str, number: usize, record: &Record) -> anyhow::Result<()> {
        let mut next = BaseRecord::with_opaque_to(topic, Box::new(number));
        next.key = record.key.as_deref();
        next.payload = record.value.as_deref();
        next.partition = record.partition;
        next.timestamp = record.timestamp;
        next.headers = to_headers(&record.headers);
        let began = Instant::now();
        loop {
            match self.producer.send(next) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    ensure!(
                        began.elapsed() < PROGRESS_WITHIN,
                        "the producer's queue to {topic} stays full"
                    );
                    next = back;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err((error, _)) => {
                    return Err(error).with_context(|| format!("send record {number} to {topic}"));
                }
            }
        }
    }
}

fn to_headers(headers: &[(String, Option<Vec<u8>>)]) -> Option<OwnedHeaders> {
    if headers.is_empty() {
        return None;
    }
    let insert = |all: OwnedHeaders, (key, value): &(String, Option<Vec<u8>>)| {
        all.insert(Header {
            key,
            value: value.as_ref(),
        })
    };
    Some(
        headers
            .iter()
            .fold(OwnedHeaders::new_with_capacity(headers.len()), insert),
    )
}
