//! The stack that the demo and the system tests stand on, and the judge that they end with.
//!
//! A test asks [`Stack::shared`] for Kafka and Postgres, one of each per test binary, takes a database
//! and topics of its own from it, starts the real services with [`Service`], breaks something, and ends
//! with [`Audit::run`]. What a chosen stack cannot show is reported as skipped ([`Stack::lacks`]).
//!
//! | module | has |
//! |---|---|
//! | [`stack`] | which Kafka and Postgres, and why |
//! | [`postgres`], [`kafka`], [`mock`] | the servers, started, killed, frozen and restarted |
//! | [`docker`] | containers of them, where the stack is one of containers |
//! | [`process`] | our two services as real processes |
//! | [`proxy`] | a network that delays, cuts, swallows answers and holds frames back |
//! | [`certificates`] | an authority of our own, for servers that encrypt |
//! | [`topics`], [`input`], [`feed`], [`tail`] | records written and read back; a realistic stream of them, at a rate; its outcomes |
//! | [`hostile`], [`hostile_rows`] | streams of records, and of outbox rows, that nobody should write |
//! | [`wait`] | waiting for a condition on a value, with a deadline |
//! | [`invariants`], [`report`] | what must hold at the end; the facts for people and machines |
//!
//! Everything started here ends with the process that started it, also when that is killed.

mod binaries;
pub mod certificates;
pub mod children;
pub mod docker;
pub mod feed;
pub mod folders;
pub mod hostile;
pub mod hostile_rows;
pub mod input;
pub mod invariants;
pub mod kafka;
pub mod mock;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod report;
pub mod stack;
pub mod sweeper;
pub mod tail;
pub mod topics;
pub mod wait;

pub use invariants::{Audit, Triage, Verdict};
pub use process::{Running, Service};
pub use stack::{Ability, Database, Stack, StackKind};
pub use topics::{Read, Record};

#[cfg(test)]
mod tests;
