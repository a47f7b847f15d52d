//! The topics a service needs: whether they exist, and how large their records may be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use super::{Role, client_config};
use crate::config::KafkaSettings;

type Admin = AdminClient<DefaultClientContext>;

/// Kafka's own limit for the name of a topic, in bytes.
const NAME_BYTES_MAX: usize = 249;

/// Whether Kafka takes this as a topic's name.
pub fn is_topic_name(name: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_legal) && name != "." && name != ".."
}

/// A topic that must exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Partitions, if it has to be made.
    pub partitions: i32,
    /// `max.message.bytes`, if it has to be made; the broker's default when absent.
    pub max_message_bytes: Option<u32>,
}

impl TopicSpec {
    /// A topic with the configured number of partitions.
    pub fn new(name: impl Into<String>, settings: &KafkaSettings) -> Self {
        Self {
            name: name.into(),
            partitions: settings.partitions,
            max_message_bytes: None,
        }
    }

    /// The same, for records of up to `bytes`.
    pub const fn with_max_message_bytes(mut self, bytes: u32) -> Self {
        self.max_message_bytes = Some(bytes);
        self
    }
}

/// Why topics are not known to be there.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// They do not exist, and may not be made here.
    #[error("missing topics: {}", names.join(", "))]
    Missing {
        /// Which ones.
        names: Vec<String>,
    },
    /// One could not be made or described.
    #[error("topic {name}: {code}")]
    Refused {
        /// Which one.
        name: String,
        /// What the broker said.
        code: RDKafkaErrorCode,
    },
    /// The cluster did not answer.
    #[error("ask Kafka about topics")]
    Client(#[source] KafkaError),
}

/// Makes the missing ones of `topics` where `create_topics` allows it, else names them all.
pub async fn ensure_topics(settings: &KafkaSettings, topics: &[TopicSpec]) -> Result<(), TopicError> {
    let existing = existing(settings).await?;
    let missing: Vec<_> = topics.iter().filter(|topic| !existing.contains(&topic.name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !settings.create_topics {
        return Err(TopicError::Missing {
            names: missing.iter().map(|topic| topic.name.clone()).collect(),
        });
    }
    create(settings, &missing).await
}

/// The largest record that each topic takes (`max.message.bytes`), where the broker tells.
pub async fn topic_limits(settings: &KafkaSettings, topics: &[&str]) -> Result<BTreeMap<String, usize>, TopicError> {
    let specifiers: Vec<_> = topics.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let answers = admin(settings)?
        .describe_configs(&specifiers, &options(settings))
        .await
        .map_err(TopicError::Client)?;
    let mut limits = BTreeMap::new();
    for (name, answer) in topics.iter().zip(answers) {
        let described = answer.map_err(|code| TopicError::Refused {
            name: (*name).to_owned(),
            code,
        })?;
        let limit = described
            .get("max.message.bytes")
            .and_then(|entry| entry.value.as_deref()?.parse().ok());
        limits.extend(limit.map(|limit| ((*name).to_owned(), limit)));
    }
    Ok(limits)
}

/// All topics are asked for: naming one could create it, where brokers create topics by themselves.
async fn existing(settings: &KafkaSettings) -> Result<BTreeSet<String>, TopicError> {
    let admin = admin(settings)?;
    let timeout = Duration::from_millis(settings.request_timeout_ms);
    let metadata = tokio::task::spawn_blocking(move || {
        let metadata = admin.inner().fetch_metadata(None, timeout)?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    });
    metadata
        .await
        .expect("asking for metadata does not panic")
        .map_err(TopicError::Client)
}

async fn create(settings: &KafkaSettings, missing: &[&TopicSpec]) -> Result<(), TopicError> {
    let limits: Vec<_> = missing
        .iter()
        .map(|topic| topic.max_message_bytes.map(|bytes| bytes.to_string()))
        .collect();
    let new: Vec<_> = missing
        .iter()
        .zip(&limits)
        .map(|(topic, limit)| {
            let new = NewTopic::new(
                &topic.name,
                topic.partitions,
                TopicReplication::Fixed(settings.replication),
            );
            match limit {
                Some(limit) => new.set("max.message.bytes", limit),
                None => new,
            }
        })
        .collect();
    let answers = admin(settings)?
        .create_topics(&new, &options(settings))
        .await
        .map_err(TopicError::Client)?;
    for answer in answers {
        match answer {
            Ok(name) => tracing::info!("made topic {name}"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {} // another instance was quicker
            Err((name, code)) => return Err(TopicError::Refused { name, code }),
        }
    }
    Ok(())
}

fn admin(settings: &KafkaSettings) -> Result<Admin, TopicError> {
    client_config(settings, Role::Admin)
        .create()
        .map_err(TopicError::Client)
}

fn options(settings: &KafkaSettings) -> AdminOptions {
    let timeout = Duration::from_millis(settings.request_timeout_ms);
    AdminOptions::new()
        .request_timeout(Some(timeout))
        .operation_timeout(Some(timeout))
}
