//! Two idempotent producers whose streams have no gaps, and what becomes of one that cannot go on.
//!
//! A delivery report carries an index, not a future: the client's own thread hands it over. An error
//! closes the life of a producer: nothing more enters its stream, so that nothing follows a gap.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use shared::config::KafkaSettings;
use shared::kafka::{Role, client_config, topic_limits};
use tokio::sync::mpsc::UnboundedSender;

use super::{errors, record};
use crate::domain::topic::{Lane, TopicFacts};
use crate::ports::{Broker, BrokerFact, Outgoing, SendError};

/// How long a purged producer may take to report what it held.
const PURGE_WAIT: Duration = Duration::from_secs(10);
/// The bound of a metadata request.
const METADATA_WAIT: Duration = Duration::from_secs(5);
/// What is taken as a topic's limit where the broker cannot say: the client's own default.
const RECORD_BYTES_UNKNOWN: usize = 1_000_000;

/// The producers of one instance. Facts go to the channel that it was made with, which is bounded by
/// the rows in the producers' hands.
pub struct KafkaBroker {
    config: ClientConfig,
    settings: KafkaSettings,
    facts: UnboundedSender<BrokerFact>,
    lanes: [Arc<Mutex<Arc<Life>>>; 2],
}

/// One producer, from its making to its first error.
struct Life {
    generation: u64,
    is_closed: Arc<AtomicBool>,
    producer: ThreadedProducer<Reports>,
}

struct Reports {
    lane: Lane,
    generation: u64,
    is_closed: Arc<AtomicBool>,
    facts: UnboundedSender<BrokerFact>,
}

impl Reports {
    /// Ends this life of the producer, and says so once.
    fn close(&self, reason: &str) {
        if !self.is_closed.swap(true, Ordering::SeqCst) {
            let (lane, generation) = (self.lane, self.generation);
            let _ = self.facts.send(BrokerFact::Failed { lane, generation, reason: reason.to_owned() });
        }
    }
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if matches!(code, Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::GaplessGuarantee)) {
            self.close(reason);
            return;
        }
        // Transport trouble: the client goes on trying by itself.
        let _ = self.facts.send(BrokerFact::Unreachable(format!("{error}: {reason}")));
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, token: usize) {
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => {
                self.close(&error.to_string());
                Err(errors::of_report(error))
            }
        };
        let (lane, generation) = (self.lane, self.generation);
        let _ = self.facts.send(BrokerFact::Reports { lane, generation, reports: vec![(token, result)] });
    }
}

impl KafkaBroker {
    /// Makes both producers. No broker is asked yet.
    ///
    /// # Errors
    /// If the client refuses its settings.
    pub fn new(settings: &KafkaSettings, facts: UnboundedSender<BrokerFact>) -> anyhow::Result<Self> {
        let mut config = client_config(settings, Role::Producer);
        if !settings.properties.iter().any(|(name, _)| name == "batch.size") {
            config.set("batch.size", BATCH_BYTES.to_string());
        }
        let life = |lane| Life::new(&config, lane, 0, &facts).map(|life| Arc::new(Mutex::new(Arc::new(life))));
        let lanes = [life(Lane::Main)?, life(Lane::Probe)?];
        Ok(Self { config, settings: settings.clone(), facts, lanes })
    }
}

/// Uncompressed bytes of one batch at most: below every sensible limit of a topic, since whole batches
/// are refused.
pub const BATCH_BYTES: usize = 256 * 1024;

impl Life {
    fn new(config: &ClientConfig, lane: Lane, generation: u64, facts: &UnboundedSender<BrokerFact>) -> anyhow::Result<Self> {
        let is_closed = Arc::new(AtomicBool::new(false));
        let context = Reports { lane, generation, is_closed: Arc::clone(&is_closed), facts: facts.clone() };
        let producer = config.create_with_context(context).context("make a producer")?;
        Ok(Self { generation, is_closed, producer })
    }

    /// Purges what is queued and in flight, and waits until all of it is reported.
    fn end(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.producer.purge(PurgeConfig::default().queue().inflight());
        let deadline = Instant::now() + PURGE_WAIT;
        // Not flush(): it polls in steps of a tenth of a second.
        while self.producer.in_flight_count() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Broker for KafkaBroker {
    fn send(&self, lane: Lane, generation: u64, rows: Vec<Outgoing>) {
        let life = Arc::clone(&self.lanes[lane as usize].lock().expect("no holder panics"));
        let mut refused = Vec::new();
        let mut failure = None;
        for row in &rows {
            if life.generation != generation || life.is_closed.load(Ordering::SeqCst) {
                refused.push((row.token, Err(SendError::Unknown)));
            } else if let Err((error, _)) = life.producer.send(record::of(row)) {
                life.is_closed.store(true, Ordering::SeqCst); // the rows behind it must not overtake it
                failure = Some(error.to_string());
                refused.push((row.token, Err(errors::of_send(&error))));
            }
        }
        if !refused.is_empty() {
            let _ = self.facts.send(BrokerFact::Reports { lane, generation, reports: refused });
        }
        if let Some(reason) = failure {
            let _ = self.facts.send(BrokerFact::Failed { lane, generation, reason });
        }
    }

    fn rebuild(&self, lane: Lane, generation: u64) {
        let (config, facts, slot) = (self.config.clone(), self.facts.clone(), Arc::clone(&self.lanes[lane as usize]));
        // Ending a producer blocks.
        std::thread::spawn(move || {
            let old = Arc::clone(&slot.lock().expect("no holder panics"));
            if old.generation != generation {
                return;
            }
            old.end();
            let generation = generation + 1;
            let life = loop {
                match Life::new(&config, lane, generation, &facts) {
                    Ok(life) => break life,
                    Err(error) => tracing::error!("producer not made, trying again: {error:#}"),
                }
                std::thread::sleep(Duration::from_secs(1));
            };
            *slot.lock().expect("no holder panics") = Arc::new(life);
            let _ = facts.send(BrokerFact::Rebuilt { lane, generation });
        });
    }

    fn ask_topic(&self, number: usize, name: String) {
        let life = Arc::clone(&self.lanes[Lane::Main as usize].lock().expect("no holder panics"));
        let (facts, settings) = (self.facts.clone(), self.settings.clone());
        tokio::spawn(async move {
            let asked = name.clone();
            let partitions = tokio::task::spawn_blocking(move || partitions_of(&life.producer, &asked)).await;
            let partitions = partitions.unwrap_or_else(|panic| Err(panic.to_string()));
            let answer = match partitions {
                Err(reason) => Err(reason),
                Ok(partitions) => {
                    let record_bytes_max = match topic_limits(&settings, &[&name]).await {
                        Ok(limits) => limits.get(&name).copied().unwrap_or(RECORD_BYTES_UNKNOWN),
                        Err(error) => {
                            tracing::debug!("topic {name}: limit not known, {RECORD_BYTES_UNKNOWN} bytes taken: {error}");
                            RECORD_BYTES_UNKNOWN
                        }
                    };
                    Ok(TopicFacts { partitions, record_bytes_max })
                }
            };
            let _ = facts.send(BrokerFact::Topic { number, facts: answer });
        });
    }
}

fn partitions_of(producer: &ThreadedProducer<Reports>, name: &str) -> Result<i32, String> {
    let metadata = producer.client().fetch_metadata(Some(name), METADATA_WAIT).map_err(|error| error.to_string())?;
    let topic = metadata.topics().first().ok_or_else(|| format!("the broker does not name topic {name}"))?;
    if let Some(error) = topic.error() {
        return Err(format!("topic {name}: {}", RDKafkaErrorCode::from(error)));
    }
    match i32::try_from(topic.partitions().len()) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(format!("topic {name} has no partition")),
    }
}
