//! The two producers behind [`crate::ports::Broker`].

mod doubt;
mod errors;
mod polled;
mod producer;
mod record;
mod stall;

pub use producer::{BATCH_BYTES, KafkaBroker};
