//! Kafka in front of the intake: the consumer's thread, its rebalances, and the offsets it stores.

mod consumer;
mod gather;
mod rebalance;
mod room;

pub use consumer::{Consumer, ConsumerOptions, ConsumerPartitions, PART_KAFKA};
pub use room::{PART_DEAD_LETTERS, watch_room};
