//! Every metric of the service. What a transaction did is counted after its commit.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, exponential_buckets,
};

use crate::domain::dead_letter::Reason;
use crate::domain::decision::Outcome;
use crate::intake::attempt::Tally;

/// Handles of the metrics. Clones count into the same ones.
#[derive(Debug, Clone)]
pub struct Metrics {
    decisions: IntCounterVec,
    duplicates: IntCounter,
    mismatches: IntCounter,
    dead_letters: IntCounterVec,
    /// Records received from Kafka.
    pub records: IntCounter,
    /// Transactions that committed, and the ways in which others did not.
    pub attempts: IntCounterVec,
    /// Records of one transaction.
    pub batch_records: Histogram,
    /// Time from begin to commit.
    pub batch_seconds: Histogram,
    /// Partitions paused since the buffers were full or the store was in trouble.
    pub pauses: IntCounter,
    /// Partitions assigned and taken away.
    pub rebalances: IntCounterVec,
    /// Partitions held now.
    pub assigned_partitions: IntGauge,
    /// Records between the watermark and the end of the partition.
    pub watermark_lag: IntGaugeVec,
    /// Rounds of upkeep that left something undone.
    pub maintenance_failures: IntCounter,
}

impl Metrics {
    /// Registers all of them. A label that is known in advance begins at 0.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counters =
            |name: &str, help: &str, label: &str, values: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
                let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
                values.iter().for_each(|value| drop(metric.with_label_values(&[value])));
                registry.register(Box::new(metric.clone()))?;
                Ok(metric)
            };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| -> Result<Histogram, prometheus::Error> {
            let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let assigned_partitions = IntGauge::new("triage_assigned_partitions", "Partitions of the input held now.")?;
        registry.register(Box::new(assigned_partitions.clone()))?;
        let watermark_lag = IntGaugeVec::new(
            Opts::new(
                "triage_watermark_lag_offsets",
                "Offsets between the stored watermark and the end of the partition.",
            ),
            &["partition"],
        )?;
        registry.register(Box::new(watermark_lag.clone()))?;
        Ok(Self {
            decisions: counters(
                "triage_decisions_total",
                "Events decided, by outcome.",
                "outcome",
                &Outcome::ALL.map(Outcome::name),
            )?,
            duplicates: counter("triage_duplicates_total", "Records whose event was handled before.")?,
            mismatches: counter(
                "triage_payload_mismatches_total",
                "Duplicates whose body is not the one decided.",
            )?,
            dead_letters: counters(
                "triage_dead_letters_total",
                "Records set aside, by reason.",
                "reason",
                &Reason::ALL.map(Reason::code),
            )?,
            records: counter("triage_records_total", "Records received.")?,
            attempts: counters(
                "triage_attempts_total",
                "Transactions, by how they ended.",
                "result",
                &[
                    "committed",
                    "take_over",
                    "data_error",
                    "claim_gone",
                    "lock_timeout",
                    "unavailable",
                    "unclear",
                ],
            )?,
            batch_records: histogram(
                "triage_batch_records",
                "Records of a committed transaction.",
                vec![
                    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0,
                ],
            )?,
            batch_seconds: histogram(
                "triage_batch_seconds",
                "Time from the beginning of a transaction to its commit.",
                exponential_buckets(0.000_5, 2.0, 16)?,
            )?,
            pauses: counter(
                "triage_pauses_total",
                "Partitions paused: buffers full, or the store in trouble.",
            )?,
            rebalances: counters(
                "triage_rebalances_total",
                "Partitions given and taken, by how.",
                "kind",
                &["assigned", "revoked", "lost"],
            )?,
            assigned_partitions,
            watermark_lag,
            maintenance_failures: counter("triage_maintenance_failures_total", "Upkeep of the tables that failed.")?,
        })
    }

    /// Counts what a committed transaction did.
    pub fn count(&self, tally: &Tally) {
        for outcome in &tally.decisions {
            self.decisions.with_label_values(&[outcome.name()]).inc();
        }
        for dead_letter in &tally.dead_letters {
            self.dead_letters
                .with_label_values(&[dead_letter.set_aside.reason.code()])
                .inc();
        }
        self.duplicates.inc_by(tally.duplicates as u64);
        self.mismatches.inc_by(tally.mismatches.len() as u64);
    }
}
