//! The settings of the service. Their defaults are the documentation of their keys.
//!
//! Times are in the unit that ends their name. Sections that the publisher has too live in
//! [`shared::config`].

mod policy;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::cli::Service;
use shared::config::{
    DatabaseSettings, HttpSettings, KafkaSettings, Problems, Settings as SettingsTrait, TelemetrySettings,
};
use shared::envelope::INPUT_RECEIVED;
use shared::kafka::Role;
use shared::retry::Backoff;

use crate::domain::case::Accepted;
use crate::intake::Limits;
use crate::intake::run::Pace;
use crate::postgres::maintenance::Upkeep;

pub use policy::{CostSettings, PolicySettings};

/// All settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which topics.
    pub topics: TopicSettings,
    /// The cluster and the consumer group.
    pub kafka: KafkaSettings,
    /// Postgres.
    pub database: DatabaseSettings,
    /// Batches, buffers, waits.
    pub intake: IntakeSettings,
    /// Who decides.
    pub policy: PolicySettings,
    /// What is kept, and for how long.
    pub retention: RetentionSettings,
    /// Health and metrics.
    pub http: HttpSettings,
    /// Logs and traces.
    pub telemetry: TelemetrySettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            topics: TopicSettings::default(),
            kafka: KafkaSettings::in_group("triage-service"),
            database: DatabaseSettings::default(),
            intake: IntakeSettings::default(),
            policy: PolicySettings::default(),
            retention: RetentionSettings::default(),
            http: HttpSettings::default(),
            telemetry: TelemetrySettings::default(),
        }
    }
}

/// `topics`: where events come from and go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicSettings {
    /// Inputs to be decided.
    pub input: String,
    /// Outcomes.
    pub output: String,
    /// Records that were set aside; `<input>.dlt` when absent.
    pub dead_letter: Option<String>,
    /// Largest record of the input, for the limit of a dead-letter topic that is made here: it takes
    /// records 64 KiB larger.
    pub input_record_bytes_max: u32,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            input: "triagemate.ingest.input-received.v1".to_owned(),
            output: "triagemate.triage.decision-made.v1".to_owned(),
            dead_letter: None,
            input_record_bytes_max: 1_048_588, // the default of brokers
        }
    }
}

impl TopicSettings {
    /// The dead-letter topic.
    pub fn dead_letter(&self) -> String {
        self.dead_letter
            .clone()
            .unwrap_or_else(|| format!("{}.dlt", self.input))
    }
}

/// `intake`: batches, buffers, waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IntakeSettings {
    /// Name under which events are claimed; the group's when absent. Whoever renames the group and must
    /// not decide everything again keeps the old name here.
    pub consumer: Option<String>,
    /// Event types that are decided, each as `type` or `type@version`. Others are set aside.
    pub accepted_types: Vec<String>,
    /// Transactions at a time, each on a connection of its own.
    pub workers: usize,
    /// Most records of one transaction.
    pub batch_records: usize,
    /// Most bytes of one transaction, except that one record is always taken.
    pub batch_bytes: usize,
    /// Records buffered over all partitions before they are paused.
    pub buffer_records: usize,
    /// Bytes buffered over all partitions before they are paused.
    pub buffer_bytes: usize,
    /// Longest wait for a record. Only shutdown notices it.
    pub poll_ms: u64,
    /// Most records handed from the polling thread to the intake at a time.
    pub chunk_records: usize,
    /// Longest time that records which come one by one wait for others, to share a transaction: three times what
    /// the last one took, and no longer than this. 0 hands over each at once.
    pub gather_max_ms: u64,
    /// Chunks between the polling thread and the intake.
    pub chunks: usize,
    /// First pause after a failed transaction; it doubles up to the longest, with full jitter.
    pub retry_initial_ms: u64,
    /// Longest pause.
    pub retry_max_ms: u64,
    /// Longest time of one transaction. After it the result counts as unknown and is tried again.
    pub attempt_timeout_ms: u64,
    /// Longest wait for transactions in flight when partitions are taken away.
    pub revoke_timeout_ms: u64,
    /// Longest wait for transactions in flight at shutdown.
    pub drain_timeout_ms: u64,
    /// Longest wait for the Kafka client to close at shutdown.
    pub close_timeout_ms: u64,
    /// Without a commit for so long while there is work, the service is not ready.
    pub stall_ms: u64,
    /// Keeps the record's bytes with its decision; off, only their digest, and nothing can be replayed.
    pub keep_input: bool,
    /// With synchronous standbys: a batch of duplicates alone waits for them before its offsets move.
    pub confirm_duplicates: bool,
}

impl Default for IntakeSettings {
    fn default() -> Self {
        Self {
            consumer: None,
            accepted_types: vec![INPUT_RECEIVED.to_owned()],
            workers: 2,
            batch_records: 700,
            batch_bytes: 2 * 1024 * 1024,
            buffer_records: 6_000,
            buffer_bytes: 8 * 1024 * 1024,
            poll_ms: 100,
            chunk_records: 500,
            gather_max_ms: 10,
            chunks: 2,
            retry_initial_ms: 100,
            retry_max_ms: 10_000,
            attempt_timeout_ms: 30_000,
            revoke_timeout_ms: 5_000,
            drain_timeout_ms: 10_000,
            close_timeout_ms: 5_000,
            stall_ms: 30_000,
            keep_input: true,
            confirm_duplicates: true,
        }
    }
}

/// `retention`: what is kept, and how far ahead the tables have leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSettings {
    /// Days that a claim is kept: the window in which a repeated event is recognised. Longer than Kafka
    /// keeps the input.
    pub claims_days: u32,
    /// Days that a decision is kept.
    pub decisions_days: u32,
    /// Days of leaves made ahead for claims and decisions.
    pub days_ahead: u32,
    /// Ids in one leaf of the outbox.
    pub outbox_leaf_rows: u32,
    /// Whole leaves of the outbox above the newest id.
    pub outbox_leaves_ahead: u32,
    /// Time between two rounds of upkeep.
    pub interval_seconds: u64,
    /// Claims deleted at a time from the leaves that are never dropped.
    pub thin_rows: u32,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self {
            claims_days: 30,
            decisions_days: 90,
            days_ahead: 7,
            outbox_leaf_rows: 5_000_000,
            outbox_leaves_ahead: 6,
            interval_seconds: 600,
            thin_rows: 10_000,
        }
    }
}

impl SettingsTrait for Settings {
    const PREFIX: &'static str = "TRIAGE__";

    fn check(&self, problems: &mut Problems) {
        self.kafka.check(&[Role::Consumer, Role::Admin], problems);
        self.database.check(problems);
        self.http.check(problems);
        self.telemetry.check(problems);
        self.topics.check(problems);
        self.intake.check(problems);
        self.policy.check(problems);
        self.retention.check(problems);
        let poll_interval = self
            .kafka
            .properties
            .get("max.poll.interval.ms")
            .and_then(|value| value.parse().ok());
        if self.intake.revoke_timeout_ms >= poll_interval.unwrap_or(300_000) {
            problems.add(
                "intake.revoke_timeout_ms",
                "must be shorter than max.poll.interval.ms: the revoke waits inside a poll",
            );
        }
        if self.intake.attempt_timeout_ms <= self.database.lock_timeout_ms {
            problems.add(
                "intake.attempt_timeout_ms",
                "must be longer than database.lock_timeout_ms",
            );
        }
    }
}

impl Service for Settings {
    fn telemetry(&self) -> &TelemetrySettings {
        &self.telemetry
    }

    fn database(&self) -> &DatabaseSettings {
        &self.database
    }

    fn http(&self) -> &HttpSettings {
        &self.http
    }
}

impl Settings {
    /// The consumer group.
    pub fn group(&self) -> &str {
        self.kafka.group.as_deref().unwrap_or_default() // has a default, and is checked not to be blank
    }

    /// The name under which events are claimed.
    pub fn consumer(&self) -> &str {
        self.intake.consumer.as_deref().unwrap_or_else(|| self.group())
    }
}

impl TopicSettings {
    fn check(&self, problems: &mut Problems) {
        let dead_letter = self.dead_letter();
        let names = [
            ("topics.input", &self.input),
            ("topics.output", &self.output),
            ("topics.dead_letter", &dead_letter),
        ];
        for (key, name) in names {
            let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            if name.is_empty() || name.len() > 249 || !name.bytes().all(is_legal) || name == "." || name == ".." {
                problems.add(key, "is no topic name: 1 to 249 letters, digits, '.', '_' or '-'");
            }
        }
        for (key, name) in &names[1..] {
            if *name == &self.input {
                problems.add(*key, "must not be the input: the service would read what it writes");
            }
        }
    }
}

impl IntakeSettings {
    fn check(&self, problems: &mut Problems) {
        if self.consumer.as_ref().is_some_and(|name| name.trim().is_empty()) {
            problems.add("intake.consumer", "must not be blank");
        }
        if self.accepted().is_none() {
            problems.add(
                "intake.accepted_types",
                "must be a list of types, each as `type` or `type@version`",
            );
        }
        let bounds = [
            ("intake.workers", self.workers, 64),
            ("intake.batch_records", self.batch_records, 10_000),
            ("intake.batch_bytes", self.batch_bytes, 256 * 1024 * 1024),
            ("intake.buffer_records", self.buffer_records, 10_000_000),
            ("intake.buffer_bytes", self.buffer_bytes, 8 * 1024 * 1024 * 1024),
            ("intake.chunk_records", self.chunk_records, 100_000),
            ("intake.chunks", self.chunks, 1_000),
        ];
        for (key, value, max) in bounds {
            if !(1..=max).contains(&value) {
                problems.add(key, format!("must be from 1 to {max}"));
            }
        }
        let times = [
            ("intake.poll_ms", self.poll_ms),
            ("intake.retry_initial_ms", self.retry_initial_ms),
            ("intake.attempt_timeout_ms", self.attempt_timeout_ms),
            ("intake.revoke_timeout_ms", self.revoke_timeout_ms),
            ("intake.drain_timeout_ms", self.drain_timeout_ms),
            ("intake.close_timeout_ms", self.close_timeout_ms),
            ("intake.stall_ms", self.stall_ms),
        ];
        for (key, value) in times {
            if value == 0 {
                problems.add(key, "must be at least 1");
            }
        }
        if self.gather_max_ms > 1_000 {
            problems.add("intake.gather_max_ms", "must be from 0 to 1000");
        }
        if self.retry_max_ms < self.retry_initial_ms {
            problems.add("intake.retry_max_ms", "must not be less than intake.retry_initial_ms");
        }
    }

    /// What is decided; `None` if the list cannot be read.
    pub fn accepted(&self) -> Option<Accepted> {
        let pairs = self.accepted_types.iter().map(|text| match text.rsplit_once('@') {
            Some((name, version)) => Some((name.to_owned(), version.parse().ok()?)),
            None => Some((text.clone(), 1)),
        });
        let pairs: Vec<(String, u32)> = pairs.collect::<Option<_>>()?;
        let is_usable = !pairs.is_empty() && pairs.iter().all(|(name, _)| !name.trim().is_empty());
        is_usable.then(|| Accepted::new(pairs))
    }

    /// Bounds of the state machine.
    pub const fn limits(&self) -> Limits {
        Limits {
            workers: self.workers,
            batch_records: self.batch_records,
            batch_bytes: self.batch_bytes,
            buffer_records: self.buffer_records,
            buffer_bytes: self.buffer_bytes,
        }
    }

    /// Waits of the loop.
    pub const fn pace(&self) -> Pace {
        Pace {
            retry: Backoff::new(
                Duration::from_millis(self.retry_initial_ms),
                Duration::from_millis(self.retry_max_ms),
            ),
            attempt_timeout: Duration::from_millis(self.attempt_timeout_ms),
            drain_timeout: Duration::from_millis(self.drain_timeout_ms),
            stall: Duration::from_millis(self.stall_ms),
        }
    }
}

impl RetentionSettings {
    fn check(&self, problems: &mut Problems) {
        let bounds = [
            ("retention.claims_days", self.claims_days, 36_500),
            ("retention.decisions_days", self.decisions_days, 36_500),
            ("retention.days_ahead", self.days_ahead, 365),
            ("retention.outbox_leaf_rows", self.outbox_leaf_rows, 1_000_000_000),
            ("retention.outbox_leaves_ahead", self.outbox_leaves_ahead, 1_000),
            ("retention.thin_rows", self.thin_rows, 1_000_000),
        ];
        for (key, value, max) in bounds {
            if !(1..=max).contains(&value) {
                problems.add(key, format!("must be from 1 to {max}"));
            }
        }
        if self.interval_seconds == 0 {
            problems.add("retention.interval_seconds", "must be at least 1");
        }
    }

    /// What the upkeep does.
    pub fn upkeep(&self) -> Upkeep {
        let days = |days: u32| Duration::from_secs(u64::from(days) * 86_400);
        let signed = |value: u32| i32::try_from(value).expect("checked to be far smaller");
        Upkeep {
            interval: Duration::from_secs(self.interval_seconds),
            claims_retention: days(self.claims_days),
            decisions_retention: days(self.decisions_days),
            days_ahead: signed(self.days_ahead),
            outbox_leaf_rows: i64::from(self.outbox_leaf_rows),
            outbox_leaves_ahead: signed(self.outbox_leaves_ahead),
            thin_rows: signed(self.thin_rows),
        }
    }
}

#[cfg(test)]
mod tests;
