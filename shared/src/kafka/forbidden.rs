//! Properties that are refused, each with its reason. Everything else passes through.

use crate::config::{KafkaSettings, Problems};

use super::Role;

/// Settings of the classic group protocol; librdkafka refuses them together with KIP-848.
pub(super) const CLASSIC_GROUP_ONLY: [&str; 3] = [
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "partition.assignment.strategy",
];

/// Properties that no binary may set, because a setting of ours does.
const HAVE_A_SETTING: [(&str, &str); 3] = [
    ("bootstrap.servers", "set kafka.brokers"),
    ("metadata.broker.list", "set kafka.brokers"),
    ("group.id", "set kafka.group"),
];

/// Reads that would lose or skip records.
const FORBIDDEN_TO_CONSUMERS: [(&str, &str); 4] = [
    (
        "enable.auto.offset.store",
        "offsets are stored after the commit in Postgres; earlier, a crash loses the record",
    ),
    ("auto.commit.enable", OFFSETS_ARE_OURS),
    ("enable.auto.commit", OFFSETS_ARE_OURS),
    (
        "offset.store.method",
        "offsets live in the broker; a file does not move with its partition",
    ),
];
const OFFSETS_ARE_OURS: &str =
    "the service decides when offsets are committed: after the commit in Postgres, on revoke and at the end";

/// Writes that would lose, reorder or hide records. Aliases count as the property they stand for.
const FORBIDDEN_TO_PRODUCERS: [(&str, &str); 12] = [
    (
        "enable.idempotence",
        "is always on: without it a retry can swap records of a key",
    ),
    ("acks", ACKS),
    ("request.required.acks", ACKS),
    ("message.timeout.ms", TIMEOUT),
    ("delivery.timeout.ms", TIMEOUT),
    (
        "enable.gapless.guarantee",
        "is always on: without it later records are written past a failed one of their key",
    ),
    ("retries", RETRIES),
    ("message.send.max.retries", RETRIES),
    (
        "partitioner",
        "the partition is computed from the key as Java's producer does; this would have no effect",
    ),
    (
        "transactional.id",
        "transactions are not used: the outbox row is the transaction",
    ),
    (
        "delivery.report.only.error",
        "a row is settled by its acknowledgement; this hides them",
    ),
    (
        "queuing.strategy",
        "another order than first in, first out breaks the order of a key",
    ),
];
const ACKS: &str = "is always all: with fewer, a record that was acknowledged can be lost with its broker";
const TIMEOUT: &str = "is always unlimited: a record that gives up leaves a gap before its successors";
const RETRIES: &str = "is always unlimited: a record that gives up leaves a gap before its successors";

/// Refuses the properties that break what a binary with these roles guarantees.
pub(crate) fn check_properties(settings: &KafkaSettings, roles: &[Role], problems: &mut Problems) {
    for (name, value) in settings.properties.iter() {
        if let Some(reason) = reason_against(name, value, settings, roles) {
            problems.add(format!("kafka.properties.{name}"), reason);
        }
    }
}

fn reason_against(name: &str, value: &str, settings: &KafkaSettings, roles: &[Role]) -> Option<String> {
    let listed = |list: &[(&str, &str)]| {
        list.iter()
            .find(|(property, _)| *property == name)
            .map(|(_, reason)| (*reason).to_owned())
    };
    listed(&HAVE_A_SETTING)
        .or_else(|| secured_twice(name, settings))
        .or_else(|| {
            roles
                .contains(&Role::Consumer)
                .then(|| listed(&FORBIDDEN_TO_CONSUMERS))
                .flatten()
        })
        .or_else(|| {
            roles
                .contains(&Role::Consumer)
                .then(|| against_consumer(name, value, settings))
                .flatten()
        })
        .or_else(|| {
            roles
                .contains(&Role::Producer)
                .then(|| listed(&FORBIDDEN_TO_PRODUCERS))
                .flatten()
        })
        .or_else(|| {
            roles
                .contains(&Role::Producer)
                .then(|| against_producer(name, value))
                .flatten()
        })
}

fn against_consumer(name: &str, value: &str, settings: &KafkaSettings) -> Option<String> {
    let is_kip_848 = settings
        .properties
        .get("group.protocol")
        .is_some_and(|protocol| protocol == "consumer");
    match name {
        "auto.offset.reset" if !["earliest", "smallest", "beginning", "error"].contains(&value) => {
            Some("must be earliest or error: from the end, records that nobody has decided are passed over".to_owned())
        }
        "group.instance.id" if is_kip_848 => Some(
            "cannot stand together with group.protocol=consumer: a killed member that returns would be refused for \
             ever (UnreleasedInstanceId)"
                .to_owned(),
        ),
        name if is_kip_848 && CLASSIC_GROUP_ONLY.contains(&name) => {
            Some("belongs to the classic protocol; with group.protocol=consumer the broker sets it".to_owned())
        }
        _ => None,
    }
}

fn against_producer(name: &str, value: &str) -> Option<String> {
    match name {
        "max.in.flight.requests.per.connection" | "max.in.flight"
            if !value.parse().is_ok_and(|count: u32| (1..=5).contains(&count)) =>
        {
            Some("must be from 1 to 5: brokers remember five batches to tell a repeated one".to_owned())
        }
        _ => None,
    }
}

/// A property that a section of ours sets too: which one counts must not depend on the order.
fn secured_twice(name: &str, settings: &KafkaSettings) -> Option<String> {
    let tls = settings.tls.enabled;
    let sasl = settings.sasl.mechanism.is_some();
    let section = match name {
        "security.protocol" if tls || sasl => "kafka.tls.enabled and kafka.sasl.mechanism",
        "ssl.ca.location" if settings.tls.ca_file.is_some() => "kafka.tls.ca_file",
        "ssl.certificate.location" if settings.tls.certificate_file.is_some() => "kafka.tls.certificate_file",
        "ssl.key.location" if settings.tls.key_file.is_some() => "kafka.tls.key_file",
        "ssl.key.password" if !settings.tls.key_password.is_empty() => "kafka.tls.key_password",
        "sasl.mechanism" | "sasl.mechanisms" | "sasl.username" | "sasl.password" if sasl => "kafka.sasl",
        _ => return None,
    };
    Some(format!("is already set by {section}"))
}
