//! The publisher's settings, with their defaults and the rules between them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::cli::Service;
use shared::config::{DatabaseSettings, HttpSettings, KafkaSettings, Problems, Settings, TelemetrySettings};
use shared::kafka::Role;

use crate::domain::retry::RetryPolicy;
use crate::domain::topic::TopicTimes;
use crate::kafka::BATCH_BYTES;
use crate::relay::{Halt, RelayConfig};

/// Everything that can be set; environment variables begin with `OUTBOX__`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The brokers to publish to.
    pub kafka: KafkaSettings,
    /// Where the outbox is.
    pub database: DatabaseSettings,
    /// Readiness and metrics.
    pub http: HttpSettings,
    /// Logs and traces.
    pub telemetry: TelemetrySettings,
    /// Leases.
    pub lease: LeaseSettings,
    /// Reading, publishing, settling.
    pub relay: RelaySettings,
    /// What follows a failure.
    pub retry: RetrySettings,
    /// How long published rows are kept.
    pub retention: RetentionSettings,
}

/// `lease`: who holds which buckets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseSettings {
    /// How long a lease lasts without renewal, in milliseconds: so long a crashed instance's rows wait.
    pub duration_ms: u64,
    /// How often leases are renewed, in milliseconds. A lease must outlast three renewals.
    pub renew_ms: u64,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self {
            duration_ms: 10_000,
            renew_ms: 1_000,
        }
    }
}

/// `relay`: bounds and times of the loop.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelaySettings {
    /// Rows that one read returns per bucket at most.
    pub read_rows_max: usize,
    /// Bytes that one read keeps at most.
    pub read_bytes_max: usize,
    /// Rows of one bucket in memory at most.
    pub bucket_rows_max: usize,
    /// Bytes of all rows in memory at which reading stops. With a read it bounds the process's memory.
    pub memory_bytes_max: usize,
    /// Rows with the Kafka client, unacknowledged, at most: so many may be published twice by a crash.
    pub in_flight_max: usize,
    /// Longest pause between reads that find nothing, in milliseconds: the price of a lost doorbell.
    pub poll_max_ms: u64,
    /// How long an acknowledged row waits for others before it is marked, in milliseconds.
    pub settle_delay_ms: u64,
    /// How often the side lane is looked at, in milliseconds: so late a redrive is noticed.
    pub look_ms: u64,
    /// How often below the bound is looked, in seconds, as a net that must catch nothing.
    pub sweep_seconds: u64,
    /// How long a statement may take, in milliseconds, before its connection counts as lost.
    pub statement_ms: u64,
    /// How long a shutdown may drain, in milliseconds.
    pub drain_ms: u64,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            read_rows_max: 1_024,
            read_bytes_max: 4 << 20,
            bucket_rows_max: 2_048,
            memory_bytes_max: 8 << 20,
            in_flight_max: 8_000,
            poll_max_ms: 250,
            settle_delay_ms: 10,
            look_ms: 1_000,
            sweep_seconds: 60,
            statement_ms: 30_000,
            drain_ms: 15_000,
        }
    }
}

/// What follows a FAILED row for the rows behind it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterFailed {
    /// They go on: the gap is the operator's to close.
    #[default]
    Continue,
    /// They wait until the failed row is redriven.
    Halt,
}

/// `retry`: failures that are a row's own.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// Attempts before a row is FAILED.
    pub attempts_max: u32,
    /// Pause after the first failure, in milliseconds; it doubles.
    pub pause_initial_ms: u64,
    /// Longest pause, in milliseconds.
    pub pause_max_ms: u64,
    /// Policy on every topic that is not named below.
    pub after_failed: AfterFailed,
    /// Topics on which a FAILED row halts its key although the policy is `continue`.
    pub halt_topics: Vec<String>,
    /// First pause of a topic that takes nothing, in milliseconds; it doubles.
    pub topic_pause_initial_ms: u64,
    /// Longest pause of a topic, in milliseconds.
    pub topic_pause_max_ms: u64,
    /// How long partitions and limit of a topic are believed, in seconds.
    pub topic_refresh_seconds: u64,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            attempts_max: 8,
            pause_initial_ms: 500,
            pause_max_ms: 60_000,
            after_failed: AfterFailed::Continue,
            halt_topics: Vec::new(),
            topic_pause_initial_ms: 200,
            topic_pause_max_ms: 10_000,
            topic_refresh_seconds: 60,
        }
    }
}

/// `retention`: leaves of the outbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSettings {
    /// How long the rows of a leaf are kept after the newest was published, in hours.
    pub published_hours: u64,
    /// Ids per leaf.
    pub leaf_rows: i64,
    /// Whole leaves kept ready above the newest id.
    pub leaves_ahead: i32,
    /// How often leaves are made and dropped, in seconds.
    pub interval_seconds: u64,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self {
            published_hours: 72,
            leaf_rows: 5_000_000,
            leaves_ahead: 6,
            interval_seconds: 30,
        }
    }
}

impl Settings for Config {
    const PREFIX: &'static str = "OUTBOX__";

    fn check(&self, problems: &mut Problems) {
        self.kafka.check(&[Role::Producer, Role::Admin], problems);
        self.database.check(problems);
        self.http.check(problems);
        self.telemetry.check(problems);
        let positive = [
            ("lease.renew_ms", self.lease.renew_ms),
            ("relay.read_rows_max", self.relay.read_rows_max as u64),
            ("relay.read_bytes_max", self.relay.read_bytes_max as u64),
            ("relay.memory_bytes_max", self.relay.memory_bytes_max as u64),
            ("relay.in_flight_max", self.relay.in_flight_max as u64),
            ("relay.poll_max_ms", self.relay.poll_max_ms),
            ("relay.look_ms", self.relay.look_ms),
            ("relay.sweep_seconds", self.relay.sweep_seconds),
            ("relay.statement_ms", self.relay.statement_ms),
            ("retry.attempts_max", u64::from(self.retry.attempts_max)),
            ("retry.pause_initial_ms", self.retry.pause_initial_ms),
            ("retry.topic_pause_initial_ms", self.retry.topic_pause_initial_ms),
            ("retry.topic_refresh_seconds", self.retry.topic_refresh_seconds),
            ("retention.leaf_rows", self.retention.leaf_rows.max(0) as u64),
            ("retention.leaves_ahead", self.retention.leaves_ahead.max(0) as u64),
            ("retention.interval_seconds", self.retention.interval_seconds),
        ];
        for (key, value) in positive {
            if value == 0 {
                problems.add(key, "must be more than 0");
            }
        }
        if self.lease.duration_ms < 3 * self.lease.renew_ms {
            problems.add(
                "lease.duration_ms",
                format!(
                    "must outlast three renewals: at least {} with lease.renew_ms = {}",
                    3 * self.lease.renew_ms,
                    self.lease.renew_ms
                ),
            );
        }
        if self.relay.bucket_rows_max < self.relay.read_rows_max {
            problems.add(
                "relay.bucket_rows_max",
                "must hold at least one read: no less than relay.read_rows_max",
            );
        }
        if self.retry.pause_max_ms < self.retry.pause_initial_ms {
            problems.add("retry.pause_max_ms", "must be no less than retry.pause_initial_ms");
        }
        if self.retry.topic_pause_max_ms < self.retry.topic_pause_initial_ms {
            problems.add(
                "retry.topic_pause_max_ms",
                "must be no less than retry.topic_pause_initial_ms",
            );
        }
    }
}

impl Service for Config {
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

/// The broker forgets an idle producer after a day (`producer.id.expiration.ms`); well before that its
/// next batch goes alone again.
const WINDOW_IDLE: Duration = Duration::from_secs(6 * 3600);

/// Rows that a read shares among its buckets: twice as many are no faster and take as much more memory.
const READ_ROWS_SHARED: usize = 4_096;

impl Config {
    /// The relay's part of it.
    pub fn relay(&self) -> RelayConfig {
        let ms = Duration::from_millis;
        let halt_topics = match self.retry.after_failed {
            AfterFailed::Halt => Halt::Everywhere,
            AfterFailed::Continue if self.retry.halt_topics.is_empty() => Halt::Nowhere,
            AfterFailed::Continue => Halt::On(self.retry.halt_topics.clone()),
        };
        RelayConfig {
            read_rows_max: self.relay.read_rows_max,
            read_rows_shared: READ_ROWS_SHARED,
            read_bytes_max: self.relay.read_bytes_max,
            bucket_rows_max: self.relay.bucket_rows_max,
            instance_bytes_max: self.relay.memory_bytes_max,
            in_flight_max: self.relay.in_flight_max,
            batch_bytes: BATCH_BYTES,
            poll_min: ms(1),
            poll_max: ms(self.relay.poll_max_ms),
            settle_delay: ms(self.relay.settle_delay_ms),
            settle_rows_max: 4_000,
            mark_pause: ms(5),
            look_interval: ms(self.relay.look_ms),
            look_rows_max: 1_024,
            look_lanes_max: 64,
            renew_interval: ms(self.lease.renew_ms),
            lease: ms(self.lease.duration_ms),
            sweep_interval: Duration::from_secs(self.relay.sweep_seconds),
            halt_topics,
            retry: RetryPolicy {
                pause_initial: ms(self.retry.pause_initial_ms),
                pause_max: ms(self.retry.pause_max_ms),
                attempts_max: self.retry.attempts_max,
            },
            topics: TopicTimes {
                pause_initial: ms(self.retry.topic_pause_initial_ms),
                pause_max: ms(self.retry.topic_pause_max_ms),
                refresh: Duration::from_secs(self.retry.topic_refresh_seconds),
                window_idle: WINDOW_IDLE,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::config::load_from;

    use super::*;

    fn load(env: &[(&str, &str)]) -> Result<Config, String> {
        let vars = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        load_from::<Config>(None, vars)
            .map(|loaded| loaded.settings)
            .map_err(|errors| errors.to_string())
    }

    const NEEDED: [(&str, &str); 2] = [
        ("OUTBOX__KAFKA__BROKERS", "h:1"),
        ("OUTBOX__DATABASE__URL", "postgres://u:p@h/d"),
    ];

    #[test]
    fn defaults_with_the_two_addresses_are_enough() {
        load(&NEEDED).unwrap();
    }

    #[test]
    fn rules_between_settings_are_checked_all_at_once() {
        let bad = [
            ("OUTBOX__LEASE__DURATION_MS", "2000"),
            ("OUTBOX__RELAY__BUCKET_ROWS_MAX", "1"),
            ("OUTBOX__RETRY__ATTEMPTS_MAX", "0"),
            ("OUTBOX__RETRY__TOPIC_REFRESH_SECONDS", "0"),
        ];
        let text = load(&[&NEEDED[..], &bad[..]].concat()).unwrap_err();
        let keys = [
            "lease.duration_ms",
            "relay.bucket_rows_max",
            "retry.attempts_max",
            "retry.topic_refresh_seconds",
        ];
        for key in keys {
            assert!(text.contains(key), "{key} is not named in: {text}");
        }
    }

    #[test]
    fn halting_is_set_for_all_topics_or_for_some() {
        assert_eq!(load(&NEEDED).unwrap().relay().halt_topics, Halt::Nowhere);
        let some = [&NEEDED[..], &[("OUTBOX__RETRY__HALT_TOPICS", "[a, b]")]].concat();
        assert_eq!(
            load(&some).unwrap().relay().halt_topics,
            Halt::On(vec!["a".into(), "b".into()])
        );
        let all = [&NEEDED[..], &[("OUTBOX__RETRY__AFTER_FAILED", "halt")]].concat();
        assert_eq!(load(&all).unwrap().relay().halt_topics, Halt::Everywhere);
    }
}
