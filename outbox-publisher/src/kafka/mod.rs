//! The two producers behind [`crate::ports::Broker`].

mod errors;
mod producer;
mod record;

pub use producer::{BATCH_BYTES, KafkaBroker};
