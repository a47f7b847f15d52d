//! Whether the pipeline moves: one event through each of its lanes.

use std::time::{Duration, Instant};

use anyhow::Context;
use harness::Record;
use harness::feed::{SentAt, Writer};
use harness::tail::Tail;
use harness::wait::{self, Seen};
use serde_json::json;
use shared::clock;
use shared::hash::{BUCKETS, bucket_of};
use uuid::Uuid;

use crate::scene::{PARTITIONS, Scene};

/// Writes a round of probes and waits for their outcomes.
///
/// A round has one event for each bucket of the outbox, spread over all partitions of the input. So it has come
/// out only when every partition is read, every batch decided, every bucket published and every topic written.
pub(crate) struct Probes {
    writer: Writer,
    /// Takes out what has arrived.
    tail: Tail,
    sent_at: SentAt,
    /// By bucket, a key that lies in it.
    keys: Vec<String>,
    /// Keys of the last round by the id of their event.
    last: Vec<(String, String)>,
    /// Events written so far.
    pub(crate) written: u64,
}

impl Probes {
    /// Begins to read the outcomes.
    pub(crate) async fn start(scene: &Scene<'_>) -> anyhow::Result<Self> {
        let sent_at = SentAt::default();
        Ok(Self {
            writer: Writer::impatient(&scene.brokers, &scene.input)?,
            tail: Tail::start(&scene.brokers, &scene.outputs(), sent_at.clone()).await?,
            sent_at,
            keys: keys_by_bucket(),
            last: Vec::new(),
            written: 0,
        })
    }

    /// Records on the topics that were there before, by their event id.
    pub(crate) fn repeats(&self) -> u64 {
        self.tail.seen().repeats()
    }

    /// Events on the topics, each counted once.
    pub(crate) fn unique(&self) -> u64 {
        self.tail.seen().unique()
    }

    /// Where the events of the last round are that have not come out, for people who look for a cause.
    pub(crate) async fn missing(&self, scene: &Scene<'_>) -> anyhow::Result<Vec<String>> {
        let mut connection = scene.database.connect().await?;
        let mut lines = Vec::new();
        for (id, key) in &self.last {
            if self.sent_at.take(id).is_none() {
                continue;
            }
            let row: Option<String> = sqlx::query_scalar(
                "select format('row %s, bucket %s, lane %s, %s, made at %s', id, bucket, lane, status, created_at) \
                   from outbox_events where key = $1 and created_at > now() - interval '1 minute' \
                  order by id desc limit 1",
            )
            .bind(key.as_bytes())
            .fetch_optional(&mut connection)
            .await?;
            lines.push(format!(
                "probe {id} of {key}: {}",
                row.as_deref().unwrap_or("has no row")
            ));
        }
        Ok(lines)
    }

    /// Sends a round now and waits until all of it has come out; how long after `since` that was.
    pub(crate) async fn go_through(&mut self, since: Instant, within: Duration) -> anyhow::Result<Duration> {
        self.last.clear();
        for (bucket, key) in self.keys.iter().enumerate() {
            let id = Uuid::new_v4().to_string();
            let record = probe(&id, key, i32::try_from(bucket)? % PARTITIONS);
            self.last.push((id, key.clone()));
            self.sent_at.note(record.value.as_deref());
            self.writer.send(&record).context("send a probe")?;
            self.written += 1;
        }
        let left = within.saturating_sub(since.elapsed());
        wait::until("every probe to come out", left, || async {
            Ok(match self.sent_at.left() {
                0 => Seen::Yes(()),
                left => Seen::NotYet(format!("{left} of {BUCKETS} probes have not come out")),
            })
        })
        .await?;
        Ok(since.elapsed())
    }
}

fn keys_by_bucket() -> Vec<String> {
    let key_in = |bucket| {
        let mut candidates = (0..).map(|number| format!("probe-{number}"));
        candidates.find(|key| bucket_of(Some(key.as_bytes()), Uuid::nil()) == bucket)
    };
    (0..BUCKETS).filter_map(key_in).collect()
}

fn probe(event_id: &str, key: &str, partition: i32) -> Record {
    let envelope = json!({
        "eventId": event_id,
        "eventType": "triagemate.ingest.input-received",
        "eventVersion": 1,
        "occurredAt": clock::unix_millis() / 1_000,
        "payload": {"inputId": key, "channel": "chat", "text": "a probe"},
    });
    Record {
        partition: Some(partition),
        ..Record::new(key, envelope.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_has_a_key_for_every_bucket() {
        let keys = keys_by_bucket();
        assert_eq!(keys.len(), BUCKETS as usize);
        for (bucket, key) in keys.iter().enumerate() {
            assert_eq!(bucket_of(Some(key.as_bytes()), Uuid::nil()), bucket as i16);
        }
    }
}
