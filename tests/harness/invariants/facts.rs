//! What Postgres and Kafka say, before anybody judges it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use anyhow::Context;
use sqlx::Connection;
use uuid::Uuid;

use super::Triage;
use crate::stack::Database;
use crate::topics::{self, Read};

/// Everything that the judge looks at.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Input records with their topic.
    pub(super) inputs: Vec<(String, Read)>,
    pub(super) claims: Vec<Claim>,
    /// Outcomes of the decisions, by the event that was decided.
    pub(super) decisions: HashMap<Uuid, Vec<String>>,
    pub(super) rows: Vec<Row>,
    pub(super) on_topic: BTreeMap<String, OnTopic>,
    /// Topics that no longer have their first records, and how many are gone.
    pub(super) dropped: Vec<(String, i64)>,
    pub(super) leases_held: i64,
}

#[derive(Debug, sqlx::FromRow)]
pub(super) struct Claim {
    pub(super) event_id: Uuid,
    event_id_text: Option<String>,
    topic: String,
    kafka_partition: i32,
    kafka_offset: i64,
    outcome: String,
}

#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) event_id: Uuid,
    pub(super) topic: String,
    pub(super) key: Option<Vec<u8>>,
    pub(super) payload: Option<Vec<u8>>,
    pub(super) status: String,
    pub(super) is_ordered: bool,
    pub(super) is_redriven: bool,
    pub(super) xid: String,
    pub(super) source_topic: Option<String>,
    pub(super) source_partition: Option<i32>,
    pub(super) source_offset: Option<i64>,
}

/// The records of an output topic, by event id.
#[derive(Debug, Default)]
pub(super) struct OnTopic {
    /// The first occurrence of each event.
    pub(super) firsts: HashMap<Uuid, Read>,
    /// Occurrences behind the first.
    pub(super) repeats: u64,
    /// Places of records without a usable event id.
    pub(super) without_id: Vec<String>,
}

impl Claim {
    pub(super) fn is_decided(&self) -> bool {
        self.outcome == "DECIDED"
    }

    pub(super) fn place(&self) -> (&str, i32, i64) {
        (&self.topic, self.kafka_partition, self.kafka_offset)
    }

    pub(super) fn id_as_written(&self) -> String {
        self.event_id_text.clone().unwrap_or_else(|| self.event_id.to_string())
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            topic,
            kafka_partition,
            kafka_offset,
            ..
        } = self;
        write!(
            f,
            "claim {} of {topic} {kafka_partition}/{kafka_offset}",
            self.id_as_written()
        )
    }
}

impl Row {
    /// The input record that caused it.
    pub(super) fn source(&self) -> Option<(&str, i32, i64)> {
        Some((
            self.source_topic.as_deref()?,
            self.source_partition?,
            self.source_offset?,
        ))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {} (event {}, topic {})", self.id, self.event_id, self.topic)
    }
}

impl Facts {
    pub(super) async fn read(brokers: &str, database: &Database, triage: Option<&Triage>) -> anyhow::Result<Self> {
        let mut facts = Self::default();
        facts
            .read_database(database, triage)
            .await
            .context("read the database")?;
        let mut outputs: BTreeSet<&str> = facts.rows.iter().map(|row| row.topic.as_str()).collect();
        if let Some(triage) = triage {
            outputs.extend([triage.output.as_str(), triage.dead_letter.as_str()]);
            for topic in &triage.inputs {
                let reads = topics::read_all(brokers, topic)
                    .await
                    .with_context(|| format!("read {topic}"))?;
                facts.inputs.extend(reads.into_iter().map(|read| (topic.clone(), read)));
            }
        }
        let outputs: Vec<String> = outputs.into_iter().map(str::to_owned).collect();
        for topic in outputs {
            let reads = topics::read_all(brokers, &topic)
                .await
                .with_context(|| format!("read {topic}"))?;
            facts.on_topic.insert(topic, OnTopic::of(reads));
        }
        let inputs = triage.map_or(&[][..], |triage| &triage.inputs);
        for topic in facts.on_topic.keys().chain(inputs) {
            let gone: i64 = topics::reaches(brokers, topic)
                .await?
                .iter()
                .map(|reach| reach.low)
                .sum();
            if gone > 0 {
                facts.dropped.push((topic.clone(), gone));
            }
        }
        Ok(facts)
    }

    async fn read_database(&mut self, database: &Database, triage: Option<&Triage>) -> anyhow::Result<()> {
        let mut connection = database.connect().await?;
        if let Some(triage) = triage {
            self.claims = sqlx::query_as(
                "select event_id, event_id_text, t.name as topic, kafka_partition, kafka_offset, outcome::text as outcome \
                   from processed_events join kafka_topics t using (topic_id) join consumers c using (consumer_id) \
                  where c.name = $1",
            )
            .bind(&triage.consumer)
            .fetch_all(&mut connection)
            .await?;
            let decisions: Vec<(Uuid, String)> = sqlx::query_as(
                "select event_id, outcome::text from decisions join consumers c using (consumer_id) where c.name = $1",
            )
            .bind(&triage.consumer)
            .fetch_all(&mut connection)
            .await?;
            for (event_id, outcome) in decisions {
                self.decisions.entry(event_id).or_default().push(outcome);
            }
        }
        self.rows = sqlx::query_as(
            "select id, event_id, topic, key, payload, status::text as status, is_ordered, \
                    redriven_at is not null as is_redriven, inserted_xid::text as xid, \
                    t.name as source_topic, source_partition, source_offset \
               from (select id, event_id, topic, key, payload, status, is_ordered, redriven_at, inserted_xid, \
                            source_topic_id, source_partition, source_offset from outbox_events \
                     union all \
                     select id, event_id, topic, key, payload, status, is_ordered, redriven_at, inserted_xid, \
                            source_topic_id, source_partition, source_offset from outbox_failed_archive) e \
               left join kafka_topics t on t.topic_id = e.source_topic_id \
              order by id",
        )
        .fetch_all(&mut connection)
        .await?;
        self.leases_held =
            sqlx::query_scalar("select count(*) from outbox_leases where locked_until > clock_timestamp()")
                .fetch_one(&mut connection)
                .await?;
        Ok(connection.close().await?)
    }
}

impl OnTopic {
    /// Of reads by partition and offset.
    fn of(reads: Vec<Read>) -> Self {
        let mut topic = Self::default();
        for read in reads {
            match read.header("event-id").and_then(|text| Uuid::parse_str(text).ok()) {
                None => topic.without_id.push(format!("{}/{}", read.partition, read.offset)),
                Some(event_id) if topic.firsts.contains_key(&event_id) => topic.repeats += 1,
                Some(event_id) => drop(topic.firsts.insert(event_id, read)),
            }
        }
        topic
    }
}
