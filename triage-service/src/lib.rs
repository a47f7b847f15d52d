//! Triage: consumes events, decides, and stores decision and outcome in one transaction.
//!
//! | module | is |
//! |---|---|
//! | [`domain`] | the case, the rules, the decision, the dead letter: no IO |
//! | [`intake`] | one delivery from its record to its offset: a state machine, its loop, its transaction |
//! | [`kafka`] | the consumer's thread, rebalances, stored offsets |
//! | [`postgres`] | claims, decisions and outbox rows; upkeep of the tables |
//! | [`config`], [`metrics`], [`app`] | settings, counters, and how it is all put together |
//!
//! A claimed event has its decision and its outcome in the same commit, and its offset moves only after
//! that commit is known. What cannot be decided is set aside in the same way, with a dead letter.

pub mod app;
pub mod config;
pub mod domain;
pub mod intake;
pub mod kafka;
pub mod metrics;
pub mod postgres;
