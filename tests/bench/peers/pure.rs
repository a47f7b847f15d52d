//! The limit: Postgres and Kafka do what the services ask of them, and nobody does anything else.

use std::time::Duration;

use anyhow::{Context, bail};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use shared::config::KafkaSettings;
use shared::kafka::{Role, client_config};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, FromRow};
use uuid::Uuid;

use super::sender::{Event, Sender};
use super::{Task, tell, wait_for_the_start};
use crate::site::PARTITIONS;
use bare::Bare;

/// Without a record for so long a topic counts as ended.
const SILENCE: Duration = Duration::from_secs(10);

pub(super) async fn read_and_settle(task: &Task) -> anyhow::Result<()> {
    let mut bare = Bare::connect(&task.database).await?;
    let began = wait_for_the_start()?;
    let rows = bare.read_and_settle().await?;
    tell(rows as u64, began)
}

pub(super) async fn write(task: &Task) -> anyhow::Result<()> {
    let rows = bare::written(&task.source).await?;
    let count = rows.len();
    let mut bare = Bare::connect(&task.database).await?;
    let began = wait_for_the_start()?;
    bare.write(rows).await?;
    tell(count as u64, began)
}

pub(super) async fn write_read_and_settle(task: &Task) -> anyhow::Result<()> {
    let rows = bare::written(&task.source).await?;
    let mut bare = Bare::connect(&task.database).await?;
    let began = wait_for_the_start()?;
    bare.write(rows).await?;
    let settled = bare.read_and_settle().await?;
    tell(settled as u64, began)
}

/// What a producer sends.
#[derive(FromRow)]
struct Made {
    event_type: String,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
}

/// The events of a database, or as many as are asked for like those of the filled outbox.
pub(super) async fn produce(task: &Task) -> anyhow::Result<()> {
    let mut sender = Sender::new(&task.brokers, &task.topic, 5)?;
    let events = if task.source.is_empty() {
        made()
    } else {
        stored(&task.source).await?
    };
    let began = wait_for_the_start()?;
    for (number, event) in events.iter().cycle().take(task.rows as usize).enumerate() {
        let next = Event {
            event_type: &event.event_type,
            key: event.key.as_deref(),
            payload: event.payload.as_deref(),
        };
        sender.send(number as i64, Uuid::from_u128(number as u128), next)?;
    }
    sender.until_acknowledged()?;
    tell(task.rows, began)
}

async fn stored(url: &str) -> anyhow::Result<Vec<Made>> {
    let mut connection = PgConnection::connect(url).await?;
    Ok(
        sqlx::query_as("select event_type, key, payload from outbox_events order by id")
            .fetch_all(&mut connection)
            .await?,
    )
}

/// A thousand of 300 bytes, half of which could be compressed away.
fn made() -> Vec<Made> {
    let mut random = StdRng::seed_from_u64(1);
    let event = |number| Made {
        event_type: "bench.row-written".to_owned(),
        key: Some(format!("customer-{number}").into_bytes()),
        payload: Some(payload(&mut random)),
    };
    (0..1_000).map(event).collect()
}

fn payload(random: &mut StdRng) -> Vec<u8> {
    let mut bytes = [0; 128];
    random.fill_bytes(&mut bytes);
    let mut text = String::from("{\"number\":000000000000,\"text\":\"");
    text.extend(bytes.iter().map(|byte| format!("{byte:02x}")));
    text.push_str("\"}");
    text.into_bytes()
}

pub(super) fn consume(task: &Task) -> anyhow::Result<()> {
    let settings = KafkaSettings {
        brokers: task.brokers.clone(),
        ..KafkaSettings::in_group("bench-bare-consumer")
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
    let mut count = 0;
    while count < task.rows {
        match consumer.poll(SILENCE) {
            Some(Ok(_)) => count += 1,
            Some(Err(error)) => return Err(error.into()),
            None => bail!("{count} of {} records, and no more for {SILENCE:?}", task.rows),
        }
    }
    tell(count, began)
}
