//! The two producers behind [`crate::ports::Broker`].

mod doubt;
mod errors;
mod producer;
mod record;

pub use producer::{BATCH_BYTES, KafkaBroker};
