//! Kafka in front of the intake: the consumer's thread, its rebalances, and the offsets it stores.

mod consumer;
mod rebalance;

pub use consumer::{Consumer, ConsumerOptions, ConsumerPartitions, PART_KAFKA};
