//! How far a topic has come, asked so cheaply that it can be asked often.

use std::time::Duration;

use anyhow::Context;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Asks for the ends of all partitions of a topic in one request.
pub struct Ends {
    consumer: BaseConsumer,
    asked: TopicPartitionList,
}

impl Ends {
    /// Of a topic with so many partitions.
    ///
    /// # Errors
    /// If the client cannot be made.
    pub fn new(brokers: &str, topic: &str, partitions: i32) -> anyhow::Result<Self> {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "bench-reads-without-a-group")
            .create()
            .context("make the client that watches a topic")?;
        let mut asked = TopicPartitionList::new();
        for partition in 0..partitions {
            asked.add_partition_offset(topic, partition, Offset::End)?; // asked as a time, it means the latest
        }
        Ok(Self { consumer, asked })
    }

    /// Records that the topic has had. It blocks its thread for the answer.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub fn sum(&self) -> anyhow::Result<u64> {
        let asked = || self.consumer.offsets_for_times(self.asked.clone(), ANSWER_WITHIN);
        let answered = tokio::task::block_in_place(asked).context("ask for the ends of a topic")?;
        answered
            .elements()
            .iter()
            .map(|element| match element.offset() {
                Offset::Offset(offset) => Ok(offset.unsigned_abs()),
                other => anyhow::bail!("partition {} ends at {other:?}", element.partition()),
            })
            .sum()
    }
}
