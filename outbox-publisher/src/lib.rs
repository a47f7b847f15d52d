//! The outbox publisher: claims outbox events, publishes them to Kafka in order per key, settles them.
//!
//! ```text
//! main → app → driver → relay (pure) → domain (pure)
//!               ├→ postgres   the store behind `ports::OutboxStore`
//!               └→ kafka      the producers behind `ports::Broker`
//! ```
//!
//! | where | what |
//! |---|---|
//! | [`relay`] | the state machine: what to read, send, settle, park, and in which order |
//! | [`domain`] | marks and floors, a tenancy of a bucket, topics and their windows, retries |
//! | [`ports`] | what the relay needs from a store and a broker |
//! | [`driver`] | carries out what the relay says, and tells it what came of it |

pub mod app;
pub mod config;
pub mod domain;
pub mod driver;
pub mod kafka;
pub mod metrics;
mod observer;
pub mod ports;
pub mod postgres;
pub mod relay;
