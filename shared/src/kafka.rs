//! Kafka clients: their settings, what the guarantees forbid to set, whether they have a broker, and the topics
//! they need.

mod brokers;
mod forbidden;
mod log;
mod topics;

use rdkafka::ClientConfig;

use crate::config::KafkaSettings;

pub use brokers::{BrokerWatch, FORGOTTEN, Finding, STATISTICS_INTERVAL_MS, remind};
pub(crate) use forbidden::check_properties;
pub use log::log;
pub use topics::{TopicError, TopicSpec, ensure_topics, is_topic_name, topic_limits};

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads records of a group; its offsets move only after the commit in Postgres.
    Consumer,
    /// Writes records in a stream without gaps.
    Producer,
    /// Makes and describes topics.
    Admin,
}

impl Role {
    /// Defaults that a property may override.
    const fn defaults(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Consumer => &[
                ("auto.offset.reset", "earliest"), // a new group, or one whose offsets expired, skips nothing
                ("auto.commit.interval.ms", "1000"),
                ("session.timeout.ms", "10000"),
                ("heartbeat.interval.ms", "1000"), // how long a second member's join stops the partitions it takes
                ("partition.assignment.strategy", "cooperative-sticky"),
                // What is fetched ahead is memory: enough for a few tenths of a second, and the next fetch as soon as some
                // is gone. The client's own second of backoff stands still whenever the queue was full.
                ("queued.min.messages", "20000"),
                ("queued.max.messages.kbytes", "6144"),
                ("fetch.queue.backoff.ms", "2"),
                ("max.partition.fetch.bytes", "262144"), // a larger record comes alone
                ("fetch.max.bytes", "8388608"),
            ],
            Self::Producer => &[
                ("linger.ms", "0"),
                ("compression.type", "lz4"),
                ("max.in.flight.requests.per.connection", "5"),
                ("queue.buffering.max.messages", "200000"),
                ("message.max.bytes", "16777216"), // the topic's own limit is the one that counts
            ],
            Self::Admin => &[],
        }
    }

    /// What the guarantees stand on; nothing overrides it.
    const fn fixed(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Consumer => &[
                ("enable.auto.offset.store", "false"), // stored up to the watermark, after the commit in Postgres
                ("enable.auto.commit", "true"),        // commits only what was stored
            ],
            Self::Producer => &[
                ("enable.idempotence", "true"),
                ("acks", "all"),
                ("message.timeout.ms", "0"), // for ever: a record that gives up leaves a gap
                ("enable.gapless.guarantee", "true"),
            ],
            Self::Admin => &[],
        }
    }
}

/// The librdkafka settings of a client: its role's defaults, then the raw properties, then what the
/// guarantees stand on.
pub fn client_config(settings: &KafkaSettings, role: Role) -> ClientConfig {
    let mut config = ClientConfig::new();
    let classic_group = settings
        .properties
        .get("group.protocol")
        .is_none_or(|protocol| protocol == "classic");
    for (name, value) in role.defaults() {
        if classic_group || !forbidden::CLASSIC_GROUP_ONLY.contains(name) {
            config.set(*name, *value);
        }
    }
    for (name, value) in settings.properties.iter() {
        config.set(name, value);
    }
    config.set("bootstrap.servers", &settings.brokers);
    if role == Role::Consumer
        && let Some(group) = &settings.group
    {
        config.set("group.id", group);
    }
    secure(&mut config, settings);
    for (name, value) in role.fixed() {
        config.set(*name, *value);
    }
    config
}

fn secure(config: &mut ClientConfig, settings: &KafkaSettings) {
    let (tls, sasl) = (&settings.tls, &settings.sasl);
    let protocol = match (tls.enabled, sasl.mechanism.is_some()) {
        (false, false) => None, // whatever the properties say
        (true, false) => Some("ssl"),
        (false, true) => Some("sasl_plaintext"),
        (true, true) => Some("sasl_ssl"),
    };
    if let Some(protocol) = protocol {
        config.set("security.protocol", protocol);
    }
    let files = [
        ("ssl.ca.location", &tls.ca_file),
        ("ssl.certificate.location", &tls.certificate_file),
        ("ssl.key.location", &tls.key_file),
    ];
    for (name, file) in files {
        if let Some(file) = file {
            config.set(name, file.to_string_lossy());
        }
    }
    if !tls.key_password.is_empty() {
        config.set("ssl.key.password", tls.key_password.expose());
    }
    if let Some(mechanism) = sasl.mechanism {
        config.set("sasl.mechanisms", mechanism.name());
        config.set("sasl.username", &sasl.username);
        config.set("sasl.password", sasl.password.expose());
    }
}

#[cfg(test)]
mod tests;
