//! The consumer that most have: one transaction a record, its id inserted first, the outcome beside it. Tuned: one
//! statement does both, prepared, and the offset is stored for a commit later on.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::config::KafkaSettings;
use shared::kafka::{Role, client_config};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{Task, tell, wait_for_the_start};
use crate::site::PARTITIONS;

/// Longest wait of one look for a record.
const POLL: Duration = Duration::from_millis(100);
/// Without a record for so long a topic counts as ended.
const SILENCE: Duration = Duration::from_secs(10);

/// A claim's conflict inserts no outcome: the second insert finds nothing to insert.
const DECIDE: &str = "with claimed as (
    insert into seen_events (event_id) values ($1) on conflict do nothing returning event_id
)
insert into leased_rows (event_id, topic, event_type, key, payload)
select event_id, 'outcomes', 'bench.decided', $2, $3 from claimed";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    event_id: Uuid,
    #[serde(borrow)]
    payload: &'a RawValue,
}

pub(super) async fn run(task: &Task) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(&task.database).await?;
    let settings = KafkaSettings {
        brokers: task.brokers.clone(),
        ..KafkaSettings::in_group("bench-per-event")
    };
    let consumer: BaseConsumer = client_config(&settings, Role::Consumer)
        .create()
        .context("make a consumer")?;
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(&task.topic, partition, Offset::Beginning)?;
    }
    let began = wait_for_the_start()?;
    consumer.assign(&all)?;
    let (mut count, mut heard_at) = (0, Instant::now());
    while count < task.rows {
        // It returns without a record also when something else has happened: offsets were committed.
        let Some(record) = tokio::task::block_in_place(|| consumer.poll(POLL)) else {
            let silence = heard_at.elapsed();
            ensure!(
                silence < SILENCE,
                "{count} of {} records, and no more for {SILENCE:?}",
                task.rows
            );
            continue;
        };
        let record = record?;
        heard_at = Instant::now();
        let envelope: Envelope<'_> = serde_json::from_slice(record.payload().unwrap_or_default())?;
        sqlx::query(DECIDE)
            .bind(envelope.event_id)
            .bind(record.key())
            .bind(envelope.payload.get().as_bytes())
            .execute(&mut connection)
            .await?;
        consumer.store_offset_from_message(&record)?;
        count += 1;
    }
    tell(count, began)
}
