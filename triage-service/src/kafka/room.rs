//! Whether the dead-letter topic has room for what may be written to it.

use std::time::Duration;

use shared::config::KafkaSettings;
use shared::health::Health;
use shared::kafka::topic_limits;
use tokio::time::timeout;
use tracing::debug;

/// The part of readiness that says so.
pub const PART_DEAD_LETTERS: &str = "dead-letters";

/// Readiness does not wait longer for an answer.
const WAIT: Duration = Duration::from_secs(2);
/// How often a topic with room is asked for its limit, and one without.
const PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(5));

/// Watches the topic's limit until it is dropped. A dead letter over it would be set aside by the publisher:
/// nothing would be lost, but nobody would see it on its topic.
///
/// Where the broker does not tell the limit, as without the right to describe the topic, there is nothing to
/// complain of.
pub async fn watch_room(settings: KafkaSettings, topic: String, needed_bytes: usize, health: Health) {
    loop {
        let limit = match timeout(WAIT, topic_limits(&settings, &[&topic])).await {
            Ok(Ok(limits)) => limits.get(&topic).copied(),
            Ok(Err(error)) => {
                debug!("limit of {topic} not known: {error}");
                None
            }
            Err(_) => {
                debug!("limit of {topic} not told within {WAIT:?}");
                None
            }
        };
        let pause = match limit {
            Some(limit) if limit < needed_bytes => {
                let reason = format!(
                    "{topic} takes records of at most {limit} bytes, a dead letter may need {needed_bytes}: \
                     raise its max.message.bytes, or lower topics.input_record_bytes_max"
                );
                health.not_ready(PART_DEAD_LETTERS, reason);
                PAUSES.1
            }
            _ => {
                health.ready(PART_DEAD_LETTERS);
                PAUSES.0
            }
        };
        tokio::time::sleep(pause).await;
    }
}
