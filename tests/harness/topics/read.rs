//! Reading a topic from one place to another.

use std::time::{Duration, Instant};

use anyhow::ensure;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{PROGRESS_WITHIN, Reach, Read, reader};

/// Reads what lies between the ends of each partition, by partition and offset.
pub(super) fn read_between(brokers: &str, topic: &str, reaches: &[Reach]) -> anyhow::Result<Vec<Read>> {
    let mut wanted = TopicPartitionList::new();
    let mut open = std::collections::HashMap::new();
    for reach in reaches.iter().filter(|reach| reach.low < reach.high) {
        wanted.add_partition_offset(topic, reach.partition, Offset::Offset(reach.low))?;
        open.insert(reach.partition, reach.high);
    }
    let mut reads = Vec::new();
    if open.is_empty() {
        return Ok(reads);
    }
    let consumer = reader(brokers)?;
    consumer.assign(&wanted)?;
    let mut progress_at = Instant::now();
    while !open.is_empty() {
        let standing = progress_at.elapsed();
        ensure!(
            standing < PROGRESS_WITHIN,
            "reading {topic} stands still; partitions and their ends: {open:?}"
        );
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                progress_at = Instant::now();
                let high = open.get(&record.partition()).copied();
                if high.is_some_and(|high| record.offset() < high) {
                    reads.push(to_read(&record));
                }
                if high.is_some_and(|high| record.offset() + 1 >= high) {
                    open.remove(&record.partition());
                }
            }
            // The last offsets of a partition may hold transaction markers, which are no records.
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
            // A broker that restarts is away for a while; the deadline above bounds it.
            Some(Err(_)) | None => {}
        }
    }
    reads.sort_by_key(|read: &Read| (read.partition, read.offset));
    Ok(reads)
}

fn to_read(record: &rdkafka::message::BorrowedMessage<'_>) -> Read {
    let headers = record.headers().map(|headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect()
    });
    Read {
        partition: record.partition(),
        offset: record.offset(),
        key: record.key().map(<[u8]>::to_vec),
        value: record.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
        timestamp: record.timestamp().to_millis(),
    }
}
