//! What can be broken, and within which time work must go on.

use std::time::Duration;

use serde::Serialize;

/// Where a part of the system is broken, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// SIGKILL to a triage instance, then it is started again.
    TriageKilled,
    /// SIGSTOP to a triage instance until another has its partitions, then SIGCONT: two owners at once.
    TriageFrozen,
    /// SIGKILL to a publisher, then it is started again.
    PublisherKilled,
    /// SIGSTOP to a publisher until another has its buckets, then SIGCONT: two owners at once.
    PublisherFrozen,
    /// SIGKILL to a publisher whose requests are held on their way and reach the broker after its successor's.
    PublisherLateFrames,
    /// SIGKILL to a publisher that no longer reaches Kafka, or no longer hears of it: what it has in hand is lost
    /// with it, or was written and nobody knows.
    PublisherKilledCutOff,
    /// SIGKILL to a broker, then it is started again.
    BrokerKilled,
    /// SIGSTOP to a broker, then SIGCONT.
    BrokerFrozen,
    /// A broker of three is stopped in order, so its partitions get other leaders, and later get it back.
    LeaderMoved,
    /// SIGKILL to the postmaster and its sessions, then it recovers from its log.
    PostgresKilled,
    /// A fast stop and a start.
    PostgresRestarted,
    /// `pg_terminate_backend` of every session of the services.
    PostgresSessionsEnded,
    /// The disk of Postgres has no byte left for a while.
    PostgresDiskFull,
    /// Each packet between services and Kafka is late.
    KafkaDelayed,
    /// Each connection between services and Kafka is cut, and new ones are refused for a while.
    KafkaCut,
    /// Packets between services and Kafka vanish, and no connection is closed.
    KafkaBlackHole,
    /// Produce requests are written, and their answers lost.
    KafkaLostAck,
    /// Each packet between services and Postgres is late.
    PostgresDelayed,
    /// Each connection between services and Postgres is cut, and new ones are refused for a while.
    PostgresCut,
    /// Packets between services and Postgres vanish, and no connection is closed.
    PostgresBlackHole,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 20] = [
        Self::TriageKilled,
        Self::TriageFrozen,
        Self::PublisherKilled,
        Self::PublisherFrozen,
        Self::PublisherLateFrames,
        Self::PublisherKilledCutOff,
        Self::BrokerKilled,
        Self::BrokerFrozen,
        Self::LeaderMoved,
        Self::PostgresKilled,
        Self::PostgresRestarted,
        Self::PostgresSessionsEnded,
        Self::PostgresDiskFull,
        Self::KafkaDelayed,
        Self::KafkaCut,
        Self::KafkaBlackHole,
        Self::KafkaLostAck,
        Self::PostgresDelayed,
        Self::PostgresCut,
        Self::PostgresBlackHole,
    ];

    /// Its name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TriageKilled => "triage_killed",
            Self::TriageFrozen => "triage_frozen",
            Self::PublisherKilled => "publisher_killed",
            Self::PublisherFrozen => "publisher_frozen",
            Self::PublisherLateFrames => "publisher_late_frames",
            Self::PublisherKilledCutOff => "publisher_killed_cut_off",
            Self::BrokerKilled => "broker_killed",
            Self::BrokerFrozen => "broker_frozen",
            Self::LeaderMoved => "leader_moved",
            Self::PostgresKilled => "postgres_killed",
            Self::PostgresRestarted => "postgres_restarted",
            Self::PostgresSessionsEnded => "postgres_sessions_ended",
            Self::PostgresDiskFull => "postgres_disk_full",
            Self::KafkaDelayed => "kafka_delayed",
            Self::KafkaCut => "kafka_cut",
            Self::KafkaBlackHole => "kafka_black_hole",
            Self::KafkaLostAck => "kafka_lost_ack",
            Self::PostgresDelayed => "postgres_delayed",
            Self::PostgresCut => "postgres_cut",
            Self::PostgresBlackHole => "postgres_black_hole",
        }
    }

    /// Whether a publisher dies or outlives its lease, so that its duplicates have a bound.
    pub(crate) fn is_publisher_crash(self) -> bool {
        matches!(
            self,
            Self::PublisherKilled | Self::PublisherFrozen | Self::PublisherLateFrames | Self::PublisherKilledCutOff
        )
    }

    /// The longest time to recover. Some ten times what is usual on an idle machine, since two cores that are
    /// busy with something else must not fail a run, and far below what a wait without a bound would take.
    pub(crate) fn recovery_max(self) -> Duration {
        let seconds = match self {
            Self::TriageKilled | Self::TriageFrozen => 20, // a session of the group, a rebalance, a start
            Self::PublisherKilled | Self::PublisherFrozen | Self::PublisherLateFrames | Self::PublisherKilledCutOff => {
                15
            } // a lease
            Self::BrokerKilled | Self::BrokerFrozen | Self::LeaderMoved => 30, // the group forms anew
            Self::PostgresKilled | Self::PostgresRestarted | Self::PostgresSessionsEnded | Self::PostgresDiskFull => 15,
            // The group may have given up members that it did not hear of.
            Self::KafkaDelayed | Self::KafkaCut | Self::KafkaBlackHole | Self::KafkaLostAck => 20,
            Self::PostgresDelayed | Self::PostgresCut | Self::PostgresBlackHole => 15,
        };
        Duration::from_secs(seconds)
    }
}
