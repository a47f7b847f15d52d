//! The consumer's thread.
//!
//! One thread polls, copies records into owned values and hands them over in chunks: whatever is at hand
//! at that moment, so that a lone record waits for nobody, and under a stream of single ones what comes
//! within some milliseconds (`gather`). It goes on polling while partitions are paused, so that the
//! membership of the group is kept.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use shared::headers::Headers;
use shared::health::Health;
use shared::kafka::{BrokerWatch, FORGOTTEN, remind};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::domain::record::{Coordinates, Record};
use crate::intake::Assignment;
use crate::intake::run::{Arrival, Partitions};
use crate::metrics::Metrics;

use super::gather::{Asked, Gatherer, Pace};
use super::rebalance::{Context, Fence};

/// Part of the service's health: the cluster.
pub const PART_KAFKA: &str = "kafka";

/// How the consumer works.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// Settings of the client.
    pub client: ClientConfig,
    /// The input topic.
    pub topic: Arc<str>,
    /// Longest wait for something to poll.
    pub poll: Duration,
    /// Most records handed over at a time.
    pub chunk_records: usize,
    /// Longest time that records which come one by one wait for others.
    pub gather_max: Duration,
    /// Longest wait for the drain of a revoke.
    pub revoke_timeout: Duration,
    /// Longest wait for the client to close at the end.
    pub close_timeout: Duration,
}

/// A consumer that polls on a thread of its own until it is closed.
#[derive(Debug)]
pub struct Consumer {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    close_timeout: Duration,
}

/// The side of the consumer that the intake steers.
#[derive(Clone)]
pub struct ConsumerPartitions {
    client: Arc<BaseConsumer<Context>>,
    topic: Arc<str>,
    pace: Arc<Pace>,
}

impl Consumer {
    /// Joins the group and begins to poll.
    pub fn start(
        options: ConsumerOptions,
        arrivals: mpsc::Sender<Arrival>,
        health: Health,
        metrics: Metrics,
    ) -> Result<(Self, ConsumerPartitions), KafkaError> {
        let context = Context {
            topic: options.topic.to_string(),
            arrivals: arrivals.clone(),
            revoke_timeout: options.revoke_timeout,
            fence: Fence::default(),
            collected: Mutex::default(),
            health,
            was_apart: AtomicBool::new(false),
            brokers: BrokerWatch::default(),
            has_forgotten: AtomicBool::new(false),
            metrics,
        };
        let client: Arc<BaseConsumer<Context>> = Arc::new(options.client.create_with_context(context)?);
        client.subscribe(&[&options.topic])?;
        let stop = Arc::new(AtomicBool::new(false));
        let pace = Arc::new(Pace::new(options.gather_max));
        let partitions = ConsumerPartitions {
            client: Arc::clone(&client),
            topic: Arc::clone(&options.topic),
            pace: Arc::clone(&pace),
        };
        let close_timeout = options.close_timeout;
        let poller = Poller {
            client,
            options,
            pace,
            arrivals,
            stop: Arc::clone(&stop),
            last_error: Cell::new(None),
        };
        let thread = std::thread::Builder::new()
            .name("kafka-poll".to_owned())
            .spawn(move || poller.run())
            .expect("the system has room for one more thread");
        Ok((
            Self {
                thread,
                stop,
                close_timeout,
            },
            partitions,
        ))
    }

    /// Commits what was stored and leaves the group. A client whose brokers are away takes most of a
    /// minute to close, so the wait is bounded; what is not committed is delivered again.
    pub async fn close(self) {
        self.stop.store(true, Ordering::Release);
        let joined = tokio::task::spawn_blocking(move || self.thread.join());
        match tokio::time::timeout(self.close_timeout, joined).await {
            Ok(Ok(Ok(()))) => info!("left the consumer group"),
            Ok(_) => warn!("the consumer's thread panicked"),
            Err(_) => warn!(
                "the Kafka client did not close within {:?}: leaving it behind",
                self.close_timeout
            ),
        }
    }
}

struct Poller {
    client: Arc<BaseConsumer<Context>>,
    options: ConsumerOptions,
    pace: Arc<Pace>,
    arrivals: mpsc::Sender<Arrival>,
    stop: Arc<AtomicBool>,
    last_error: Cell<Option<RDKafkaErrorCode>>,
}

impl Poller {
    fn run(self) {
        let mut gatherer = Gatherer::new(self.options.chunk_records, self.options.poll);
        while !self.stop.load(Ordering::Acquire) && !self.arrivals.is_closed() {
            if !gatherer.gather(&self.pace, |wait| self.poll(wait)) {
                return;
            }
            self.client.context().hand_over();
            if self.client.context().has_forgotten.swap(false, Ordering::Relaxed) && !self.remind() {
                return;
            }
        }
        match self.client.commit_consumer_state(CommitMode::Sync) {
            Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => warn!("last offsets not committed, records are delivered again: {error}"),
        }
        // Dropping the last handle closes the client, which can block: here, on this thread.
    }

    /// Waits for a record and keeps it to be handed over.
    fn poll(&self, wait: Duration) -> Asked {
        match self.client.poll(wait) {
            Some(Ok(message)) => {
                self.last_error.set(None);
                self.client.context().collect(owned(&message, &self.options.topic));
                Asked::Taken
            }
            Some(Err(error)) if self.goes_on(&error) => Asked::Nothing,
            Some(Err(error)) => {
                self.client.context().tell(Arrival::Failed(error.to_string()));
                Asked::Failed
            }
            None => Asked::Nothing,
        }
    }

    /// Whether a client that forgot every broker knows some again. A consumer made anew in this process would read
    /// beside the old one's batches, with assignments of its own; this one keeps its membership, if it is in time.
    fn remind(&self) -> bool {
        let bootstrap = self.options.client.get("bootstrap.servers").unwrap_or_default();
        if remind(self.client.client(), bootstrap) {
            warn!("{FORGOTTEN}: told it of {bootstrap} again");
            return true;
        }
        self.client.context().tell(Arrival::Failed(FORGOTTEN.to_owned()));
        false
    }

    /// Whether the client goes on after an error. Each kind is logged once until a record comes.
    fn goes_on(&self, error: &KafkaError) -> bool {
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            return false;
        }
        let code = error.rdkafka_error_code();
        if self.last_error.replace(code) != code {
            warn!("kafka: {error}; trying again");
        }
        true
    }
}

/// Copies a record: a borrowed one keeps its whole fetch buffer alive.
fn owned(message: &BorrowedMessage<'_>, topic: &Arc<str>) -> Record {
    let mut headers = Headers::new();
    for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
        headers.push(header.key, header.value);
    }
    Record {
        at: Coordinates {
            topic: Arc::clone(topic),
            partition: message.partition(),
            offset: message.offset(),
        },
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}

impl ConsumerPartitions {
    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        list
    }
}

impl Partitions for ConsumerPartitions {
    fn committed(&self, took: Duration) {
        self.pace.committed(took);
    }

    fn pause(&self, partitions: &[i32]) {
        if let Err(error) = self.client.pause(&self.list(partitions)) {
            warn!("partitions {partitions:?} not paused: {error}");
        }
    }

    fn resume(&self, partitions: &[i32]) {
        if let Err(error) = self.client.resume(&self.list(partitions)) {
            warn!("partitions {partitions:?} not resumed: {error}");
        }
    }

    fn store(&self, partition: i32, assignment: Assignment, offset: i64) {
        self.client.context().fence.guard(partition, assignment, || {
            let mut list = TopicPartitionList::with_capacity(1);
            let stored = list
                .add_partition_offset(&self.topic, partition, Offset::Offset(offset))
                .and_then(|()| self.client.store_offsets(&list));
            if let Err(error) = stored {
                warn!("offset {offset} of partition {partition} not stored: {error}");
            }
        });
    }
}
