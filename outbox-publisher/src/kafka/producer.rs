//! Two idempotent producers whose streams have no gaps, and what becomes of one that cannot go on.
//!
//! A delivery report carries an index, not a future: a thread of the producer's hands it over. An error
//! closes the life of a producer: nothing more enters its stream, so that nothing follows a gap.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext, PurgeConfig};
use rdkafka::statistics::Statistics;
use shared::cause::chain;
use shared::config::KafkaSettings;
use shared::kafka::{
    BrokerWatch, FORGOTTEN, Finding, Role, STATISTICS_INTERVAL_MS, TopicError, client_config, topic_limits,
};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;

use super::doubt::{Doubt, is_refused, reach};
use super::polled::Polled;
use super::stall::{Patience, StallWatch};
use super::{errors, record};
use crate::domain::topic::{Lane, TopicFacts, TopicFault};
use crate::ports::{Broker, BrokerFact, Outgoing, SendError};

/// How long a purged producer may take to report what it held.
const PURGE_WAIT: Duration = Duration::from_secs(10);
/// The bound of a metadata request.
const METADATA_WAIT: Duration = Duration::from_secs(5);
/// The bound of asking for a topic's limit, for which its rows wait. Without an answer the broker judges.
const LIMIT_WAIT: Duration = Duration::from_secs(2);

/// The producers of one instance. Facts go to the channel that it was made with, which is bounded by
/// the rows in the producers' hands.
pub struct KafkaBroker {
    config: ClientConfig,
    settings: KafkaSettings,
    facts: UnboundedSender<BrokerFact>,
    lanes: [Slot; 2],
    doubt: Arc<Doubt>,
    patience: [Patience; 2],
}

/// Where the present life of a producer is.
type Slot = Arc<Mutex<Arc<Life>>>;

/// One producer, from its making to its first error.
struct Life {
    generation: u64,
    is_closed: Arc<AtomicBool>,
    producer: Polled<Reports>,
}

struct Reports {
    lane: Lane,
    generation: u64,
    is_closed: Arc<AtomicBool>,
    doubt: Arc<Doubt>,
    brokers: BrokerWatch,
    stalls: StallWatch,
    facts: UnboundedSender<BrokerFact>,
}

impl Reports {
    /// Says that no broker can be reached.
    fn tell(&self, reason: String) {
        self.doubt.raise();
        let _ = self.facts.send(BrokerFact::Unreachable(reason));
    }

    /// Ends this life of the producer, and says so once.
    fn close(&self, reason: &str) {
        if !self.is_closed.swap(true, Ordering::SeqCst) {
            let (lane, generation) = (self.lane, self.generation);
            let _ = self.facts.send(BrokerFact::Failed {
                lane,
                generation,
                reason: reason.to_owned(),
            });
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        shared::kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if matches!(code, Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::GaplessGuarantee)) {
            self.close(reason);
            return;
        }
        // Trouble with one broker of several is the client's to mend. So is this, and it need not be trouble: a
        // broker closes a connection that was idle. Whether one answers is found out, and only then told.
        if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.doubt.raise();
            return;
        }
        self.doubt.hear(reason);
        if is_refused(code) {
            self.tell(reason.to_owned());
        } else {
            tracing::debug!("Kafka client: {error}: {reason}"); // its own log has said so
        }
    }

    fn stats(&self, statistics: Statistics) {
        match self.brokers.see(&statistics) {
            Finding::Forgotten => self.close(FORGOTTEN),
            Finding::Silent(since) => {
                self.stalls.excuse();
                // The other producer is idle for days: what it has in flight is watched by its acknowledgements.
                if self.lane == Lane::Main {
                    let trouble = format!("no broker of Kafka has answered in the last {} s", since.as_secs());
                    self.tell(self.doubt.explain(&trouble));
                }
            }
            Finding::Well => {
                if let Some(reason) = self.stalls.see(&statistics) {
                    self.close(&reason);
                }
            }
        }
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
        let _ = self.facts.send(BrokerFact::Reports {
            lane,
            generation,
            reports: vec![(token, result)],
        });
    }
}

impl KafkaBroker {
    /// Makes both producers. No broker is asked yet.
    ///
    /// # Errors
    /// If the client refuses its settings.
    pub fn new(settings: &KafkaSettings, facts: UnboundedSender<BrokerFact>) -> anyhow::Result<Self> {
        let mut config = client_config(settings, Role::Producer);
        for (name, value) in SUITED {
            if settings.properties.get(name).is_none() {
                config.set(name, value);
            }
        }
        if settings.properties.get("batch.size").is_none() {
            config.set("batch.size", BATCH_BYTES.to_string());
        }
        let doubt = Arc::new(Doubt::new());
        let patience = <[Patience; 2]>::default();
        let life = |lane| {
            let life = Life::new(&config, lane, 0, &facts, &doubt, &patience[lane as usize])?;
            anyhow::Ok(Arc::new(Mutex::new(Arc::new(life))))
        };
        let lanes = [life(Lane::Main)?, life(Lane::Probe)?];
        let (slot, doubted, told) = (Arc::downgrade(&lanes[0]), Arc::clone(&doubt), facts.clone());
        std::thread::Builder::new()
            .name("kafka-reach".to_owned())
            .spawn(move || reach(&slot, ask, &doubted, &told))
            .context("start a thread")?;
        Ok(Self {
            config,
            settings: settings.clone(),
            facts,
            lanes,
            doubt,
            patience,
        })
    }
}

/// What suits this service, unless the properties say otherwise.
const SUITED: [(&str, &str); 3] = [
    ("statistics.interval.ms", STATISTICS_INTERVAL_MS),
    // Without a question now and then, a publisher with nothing to send would not learn that Kafka is gone: a
    // connection through a network that swallows packets looks alive as long as nothing is due on it.
    ("topic.metadata.refresh.interval.ms", "5000"),
    ("metadata.max.age.ms", "900000"), // its default, which would otherwise follow the line above
];

/// Uncompressed bytes of one batch at most: below every sensible limit of a topic, since whole batches
/// are refused.
pub const BATCH_BYTES: usize = 256 * 1024;

impl Life {
    fn new(
        config: &ClientConfig,
        lane: Lane,
        generation: u64,
        facts: &UnboundedSender<BrokerFact>,
        doubt: &Arc<Doubt>,
        patience: &Patience,
    ) -> anyhow::Result<Self> {
        let is_closed = Arc::new(AtomicBool::new(false));
        let doubt = Arc::clone(doubt);
        let context = Reports {
            lane,
            generation,
            is_closed: Arc::clone(&is_closed),
            doubt,
            brokers: BrokerWatch::default(),
            stalls: StallWatch::new(patience.clone()),
            facts: facts.clone(),
        };
        Ok(Self {
            generation,
            is_closed,
            producer: Polled::new(config, context)?,
        })
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

impl Drop for KafkaBroker {
    /// A client whose broker is away can take a minute to close: nobody waits for it, not even
    /// [`leave`](shared::cli::leave).
    fn drop(&mut self) {
        let lanes = self.lanes.clone();
        std::thread::spawn(move || drop(lanes));
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
            let _ = self.facts.send(BrokerFact::Reports {
                lane,
                generation,
                reports: refused,
            });
        }
        if let Some(reason) = failure {
            let _ = self.facts.send(BrokerFact::Failed {
                lane,
                generation,
                reason,
            });
        }
    }

    fn rebuild(&self, lane: Lane, generation: u64) {
        let (config, facts, slot) = (
            self.config.clone(),
            self.facts.clone(),
            Arc::clone(&self.lanes[lane as usize]),
        );
        let (doubt, patience) = (Arc::clone(&self.doubt), self.patience[lane as usize].clone());
        // Ending a producer blocks.
        std::thread::spawn(move || {
            let old = Arc::clone(&slot.lock().expect("no holder panics"));
            if old.generation != generation {
                return;
            }
            old.end();
            let generation = generation + 1;
            let life = loop {
                match Life::new(&config, lane, generation, &facts, &doubt, &patience) {
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
            let partitions = partitions.unwrap_or_else(|panic| Err(TopicFault::NoAnswer(panic.to_string())));
            let answer = match partitions {
                Err(fault) => Err(fault),
                Ok(partitions) => match limit_of(&settings, &name).await {
                    Ok(record_bytes_max) => Ok(TopicFacts {
                        partitions,
                        record_bytes_max,
                    }),
                    Err(reason) => Err(TopicFault::LimitNotTold { partitions, reason }),
                },
            };
            let _ = facts.send(BrokerFact::Topic { number, facts: answer });
        });
    }
}

/// Whether a broker answers the producer of now.
fn ask(slot: Slot) -> KafkaResult<()> {
    let life = Arc::clone(&slot.lock().expect("no holder panics"));
    drop(slot);
    life.producer.client().fetch_metadata(None, METADATA_WAIT).map(drop)
}

/// A topic's `max.message.bytes`, `None` where the broker will not say, or why nothing was heard of it.
async fn limit_of(settings: &KafkaSettings, name: &str) -> Result<Option<usize>, String> {
    match timeout(LIMIT_WAIT, topic_limits(settings, &[name])).await {
        Ok(Ok(limits)) => Ok(limits.get(name).copied()),
        Ok(Err(TopicError::Refused { code, .. })) => {
            tracing::debug!("max.message.bytes of topic {name} is not told: {code}");
            Ok(None)
        }
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(format!("max.message.bytes not told within {LIMIT_WAIT:?}")),
    }
}

fn partitions_of(producer: &BaseProducer<Reports>, name: &str) -> Result<i32, TopicFault> {
    let metadata = producer
        .client()
        .fetch_metadata(Some(name), METADATA_WAIT)
        .map_err(|error| TopicFault::NoAnswer(error.to_string()))?;
    let topic = metadata
        .topics()
        .first()
        .ok_or_else(|| TopicFault::Refused(format!("the broker does not name topic {name}")))?;
    if let Some(error) = topic.error() {
        let code = RDKafkaErrorCode::from(error);
        return Err(TopicFault::Refused(format!("topic {name}: {code}")));
    }
    match i32::try_from(topic.partitions().len()) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(TopicFault::Refused(format!("topic {name} has no partition"))),
    }
}
