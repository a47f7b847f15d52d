//! Bounds and times of a relay, and where a FAILED row halts its key.

use std::time::Duration;

use crate::domain::retry::RetryPolicy;
use crate::domain::topic::TopicTimes;

/// Bounds and times of a relay.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// Rows of a bucket that one read returns at most.
    pub read_rows_max: usize,
    /// Rows that a read shares among the buckets, each of which may have one.
    pub read_rows_shared: usize,
    /// Payload bytes that one read keeps at most.
    pub read_bytes_max: usize,
    /// Rows of a bucket in hand at most.
    pub bucket_rows_max: usize,
    /// Bytes in hand, all buckets together, at which reading stops.
    pub instance_bytes_max: usize,
    /// Rows in the producers' hands at most.
    pub in_flight_max: usize,
    /// What a producer puts into one batch at most, in bytes.
    pub batch_bytes: usize,
    /// Pause between reads that find nothing: from this ...
    pub poll_min: Duration,
    /// ... doubling up to this.
    pub poll_max: Duration,
    /// Acknowledged rows wait for others at most so long before they are marked.
    pub settle_delay: Duration,
    /// Rows marked by one statement at most.
    pub settle_rows_max: usize,
    /// At least so long between marks that need a transaction of their own.
    pub mark_pause: Duration,
    /// The side lane is looked at so often.
    pub look_interval: Duration,
    /// Side rows of one key that a look returns at most; a quarter of them where many keys are blocked.
    pub look_rows_max: usize,
    /// Blocked keys of a bucket that a look covers at most.
    pub look_lanes_max: usize,
    /// Leases are renewed so often.
    pub renew_interval: Duration,
    /// A lease lasts so long.
    pub lease: Duration,
    /// Below the bound is looked so often, as a net that must catch nothing.
    pub sweep_interval: Duration,
    /// Topics on which a FAILED row halts its key; `None` halts on all.
    pub halt_topics: Halt,
    /// Answers to failures of a row's own.
    pub retry: RetryPolicy,
    /// Answers to trouble of a destination.
    pub topics: TopicTimes,
}

/// What follows a FAILED row for the rows behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Halt {
    /// They go on.
    #[default]
    Nowhere,
    /// On these topics they wait until an operator puts the failed one back.
    On(Vec<String>),
    /// They wait on every topic.
    Everywhere,
}

impl Halt {
    /// Whether a FAILED row halts its key on this topic.
    pub fn is_on(&self, topic: &str) -> bool {
        match self {
            Self::Nowhere => false,
            Self::On(topics) => topics.iter().any(|t| t == topic),
            Self::Everywhere => true,
        }
    }
}
