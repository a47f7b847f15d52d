//! Every metric of the publisher.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::relay::Tally;

/// The instruments. They count what was committed or acknowledged, never what was tried.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// All of them, for `/metrics`.
    pub registry: Registry,
    published: IntCounter,
    settled: IntCounter,
    attempts: IntCounterVec,
    failed: IntCounterVec,
    parked: IntCounter,
    rebuilds: IntCounter,
    swept: IntCounter,
    taken: IntCounter,
    lost: IntCounter,
    /// Buckets held.
    pub buckets: IntGauge,
    /// Instances alive at the last count.
    pub instances: IntGauge,
    /// Keys that wait behind a failed row.
    pub keys_blocked: IntGauge,
    /// Rows with the client.
    pub in_flight: IntGauge,
    /// Age of the oldest transaction that may still insert low ids.
    pub oldest_writer_seconds: Gauge,
    /// PENDING rows of the buckets held.
    pub backlog: IntGauge,
    /// Age of the oldest of them.
    pub oldest_seconds: Gauge,
    /// FAILED rows of the buckets held.
    pub failed_rows: IntGauge,
    /// Statements that found no well server.
    pub store_lost: IntCounter,
    /// Whole leaves above the newest id.
    pub leaves_ahead: IntGauge,
    /// Maintenance that did not go through.
    pub maintenance_failures: IntCounter,
    paused: IntGaugeVec,
}

impl Metrics {
    /// The instruments, registered.
    ///
    /// # Errors
    /// If a name is used twice.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let seconds = |name: &str, help: &str| {
            let gauge = Gauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let by = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let paused = IntGaugeVec::new(
            Opts::new("outbox_topic_paused", "1 while nothing gets through to the topic"),
            &["topic"],
        )?;
        registry.register(Box::new(paused.clone()))?;
        let metrics = Self {
            published: counter("outbox_published_events_total", "Events acknowledged by Kafka")?,
            settled: counter("outbox_settled_events_total", "Events marked PUBLISHED")?,
            attempts: by(
                "outbox_publish_attempts_total",
                "Attempts to publish, by outcome",
                "outcome",
            )?,
            failed: by(
                "outbox_failed_events_total",
                "Events set aside as FAILED, by reason",
                "reason",
            )?,
            parked: counter("outbox_parked_events_total", "Events moved to the side lane")?,
            rebuilds: counter("outbox_producer_rebuilds_total", "Producers replaced after an error")?,
            swept: counter(
                "outbox_swept_events_total",
                "Events that only the sweep found; more than 0 is a defect",
            )?,
            taken: counter("outbox_buckets_taken_total", "Buckets taken")?,
            lost: counter("outbox_buckets_lost_total", "Buckets lost to another instance")?,
            buckets: gauge("outbox_buckets_held", "Buckets held by this instance")?,
            instances: gauge("outbox_instances_alive", "Publishers alive, by their heartbeats")?,
            keys_blocked: gauge(
                "outbox_keys_blocked",
                "Keys that wait behind a failed event, in the buckets held",
            )?,
            in_flight: gauge(
                "outbox_in_flight_events",
                "Events with the Kafka client, not acknowledged",
            )?,
            oldest_writer_seconds: seconds(
                "outbox_oldest_writer_age_seconds",
                "How long the oldest transaction has been running that may still insert below the newest event",
            )?,
            backlog: gauge(
                "outbox_backlog_events",
                "PENDING events in the buckets held, counted up to a bound",
            )?,
            oldest_seconds: seconds(
                "outbox_oldest_unpublished_age_seconds",
                "Age of the oldest PENDING event in the buckets held",
            )?,
            failed_rows: gauge("outbox_failed_events", "FAILED events in the buckets held")?,
            store_lost: counter(
                "outbox_store_losses_total",
                "Statements that lost their connection to Postgres",
            )?,
            leaves_ahead: gauge("outbox_leaves_ahead", "Whole leaves above the newest id")?,
            maintenance_failures: counter(
                "outbox_maintenance_failures_total",
                "Maintenance steps that failed and will be repeated",
            )?,
            paused,
            registry,
        };
        metrics.attempts.with_label_values(&["published"]);
        metrics.attempts.with_label_values(&["failed"]);
        Ok(metrics)
    }

    /// Adds what the relay has done.
    pub fn add(&self, tally: &Tally) {
        self.published.inc_by(tally.published);
        self.settled.inc_by(tally.settled);
        self.attempts.with_label_values(&["published"]).inc_by(tally.published);
        self.attempts
            .with_label_values(&["failed"])
            .inc_by(tally.attempts_failed);
        for (reason, count) in &tally.failed {
            self.failed.with_label_values(&[reason]).inc_by(*count);
        }
        self.parked.inc_by(tally.parked);
        self.rebuilds.inc_by(tally.rebuilds);
        self.swept.inc_by(tally.swept);
        self.taken.inc_by(tally.taken);
        self.lost.inc_by(tally.lost);
    }

    /// Which topics are paused, of those that are known: one that is well says 0.
    pub fn paused<'a>(&self, known: impl Iterator<Item = &'a str>, now: impl Iterator<Item = &'a str>) {
        for topic in known {
            self.paused.with_label_values(&[topic]).set(0);
        }
        for topic in now {
            self.paused.with_label_values(&[topic]).set(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_names_are_what_dashboards_know() {
        let metrics = Metrics::new().unwrap();
        metrics.failed.with_label_values(&["attempts"]);
        let names: Vec<String> = metrics
            .registry
            .gather()
            .iter()
            .map(|family| family.name().to_owned())
            .collect();
        insta::assert_snapshot!(names.join("\n"));
    }
}
