//! Measures the services against the limit that Postgres and Kafka set, and against what others do, in one run.

pub mod bare;
pub mod latency;
pub mod plot;
pub mod table;

mod figures;
