//! Rebalances: messages to the owner of partition state, and the fence of the offsets.
//!
//! The callbacks run on the thread that polls. A revoke asks the owner to drain and waits for its answer,
//! bounded; then it commits what was stored, before the partition moves. A lost assignment is only told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc as sync_mpsc};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use shared::health::Health;
use shared::kafka::{BrokerWatch, FORGOTTEN, Finding};
use tokio::sync::mpsc;
use tracing::warn;

use crate::domain::record::Record;
use crate::intake::Assignment;
use crate::intake::run::Arrival;
use crate::metrics::Metrics;

use super::PART_KAFKA;

/// What the callbacks of the client know.
pub(super) struct Context {
    pub(super) topic: String,
    pub(super) arrivals: mpsc::Sender<Arrival>,
    pub(super) revoke_timeout: Duration,
    pub(super) fence: Fence,
    /// Polled and not handed over yet.
    pub(super) collected: Mutex<Vec<Record>>,
    pub(super) health: Health,
    /// The last statistics found the group's coordinator away.
    pub(super) was_apart: AtomicBool,
    pub(super) brokers: BrokerWatch,
    /// The last statistics found that the client has forgotten every broker.
    pub(super) has_forgotten: AtomicBool,
    pub(super) metrics: Metrics,
}

/// Which assignment each partition has now. Offsets are stored under its lock, so that a late one of an
/// assignment that is over can never reach a partition that came back.
#[derive(Debug, Default)]
pub(super) struct Fence(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    assignments: HashMap<i32, Assignment>,
    last: u64,
}

impl Fence {
    fn begin(&self, partitions: &[i32]) -> Vec<(i32, Assignment)> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        partitions
            .iter()
            .map(|&partition| {
                held.last += 1;
                let assignment = Assignment(held.last);
                held.assignments.insert(partition, assignment);
                (partition, assignment)
            })
            .collect()
    }

    fn end(&self, partitions: &[i32]) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.assignments.retain(|partition, _| !partitions.contains(partition));
    }

    /// Does `store` if the partition still has that assignment.
    pub(super) fn guard(&self, partition: i32, assignment: Assignment, store: impl FnOnce()) {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.assignments.get(&partition) == Some(&assignment) {
            store();
        }
    }
}

impl Context {
    fn end(&self, partitions: &[i32]) {
        self.fence.end(partitions);
        for partition in partitions {
            let _ = self
                .metrics
                .watermark_lag
                .remove_label_values(&[&partition.to_string()]); // may never have been set
        }
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: Vec<i32>) {
        if consumer.assignment_lost() {
            self.end(&partitions);
            self.tell(Arrival::Lost(partitions));
            return;
        }
        let (answer, answered) = sync_mpsc::sync_channel(1);
        self.tell(Arrival::Revoking {
            partitions: partitions.clone(),
            answer,
        });
        match answered.recv_timeout(self.revoke_timeout) {
            // Without a loop that answers, the process is ending, and has drained before.
            Ok(()) | Err(sync_mpsc::RecvTimeoutError::Disconnected) => self.end(&partitions),
            Err(sync_mpsc::RecvTimeoutError::Timeout) => {
                warn!(
                    "partitions {partitions:?} not drained within {:?}: what is in flight is delivered again",
                    self.revoke_timeout
                );
                self.end(&partitions);
                self.tell(Arrival::Lost(partitions));
            }
        }
        match consumer.commit_consumer_state(CommitMode::Sync) {
            Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => {
                warn!("offsets not committed at revoke, records are delivered again: {error}")
            }
        }
    }

    /// Keeps a record until the chunk is handed over.
    pub(super) fn collect(&self, record: Record) {
        self.collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(record);
    }

    /// Hands over the records collected so far.
    pub(super) fn hand_over(&self) {
        let records = std::mem::take(&mut *self.collected.lock().unwrap_or_else(PoisonError::into_inner));
        if !records.is_empty() {
            let _ = self.arrivals.blocking_send(Arrival::Records(records));
        }
    }

    /// Records come first: those of an assignment must not arrive after its end was told, or they would
    /// count as records of the next one, whose first offset may be lower.
    pub(super) fn tell(&self, arrival: Arrival) {
        self.hand_over();
        // The loop takes arrivals as long as it lives; once it is gone there is nobody to tell.
        let _ = self.arrivals.blocking_send(arrival);
    }

    fn ours(&self, list: &TopicPartitionList) -> Vec<i32> {
        list.elements_for_topic(&self.topic)
            .iter()
            .map(|element| element.partition())
            .collect()
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(list) => {
                let partitions = self.ours(list);
                if !partitions.is_empty() {
                    self.revoke(consumer, partitions);
                }
            }
            Rebalance::Assign(_) => {}
            Rebalance::Error(error) => warn!("rebalance failed: {error}"),
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            let partitions = self.ours(list);
            self.health.ready(PART_KAFKA); // the group's coordinator has answered
            if !partitions.is_empty() {
                self.tell(Arrival::Assigned(self.fence.begin(&partitions)));
            }
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        match result {
            Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => warn!("offsets not committed, trying again with the next ones: {error}"),
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        shared::kafka::log(level, facility, message);
    }

    /// Transport errors are information: the client reconnects by itself, for ever.
    fn error(&self, error: KafkaError, reason: &str) {
        warn!("kafka: {error}: {reason}");
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.health
                .not_ready(PART_KAFKA, "no broker answers; trying again for ever");
        }
    }

    fn stats(&self, statistics: Statistics) {
        if self.brokers.see(&statistics) == Finding::Forgotten {
            self.health.not_ready(PART_KAFKA, FORGOTTEN);
            self.has_forgotten.store(true, Ordering::Relaxed); // the client is not at hand here
            return;
        }
        let is_up = statistics.brokers.values().any(|broker| broker.state == "UP");
        let is_apart = !(is_up && statistics.cgrp.as_ref().is_some_and(|group| group.state == "up"));
        let was_apart = self.was_apart.swap(is_apart, Ordering::Relaxed);
        if !is_apart {
            self.health.ready(PART_KAFKA);
        } else if was_apart {
            // Where a network swallows packets, a connection that waits for records looks alive for a minute, so
            // the client does not say that all brokers are down. Once alone may be a hand-over between brokers.
            self.health.not_ready(
                PART_KAFKA,
                "the group's coordinator cannot be reached; trying again for ever",
            );
        }
        let Some(topic) = statistics.topics.get(&self.topic) else {
            return;
        };
        for partition in topic
            .partitions
            .values()
            .filter(|partition| partition.partition >= 0 && partition.fetch_state == "active")
        {
            let done = partition.stored_offset.max(partition.committed_offset);
            if partition.hi_offset >= 0 && done >= 0 {
                let lag = self
                    .metrics
                    .watermark_lag
                    .with_label_values(&[&partition.partition.to_string()]);
                lag.set((partition.hi_offset - done).max(0));
            }
        }
    }
}
