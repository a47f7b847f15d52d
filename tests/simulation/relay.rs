//! Several real relays on a store and a broker that lie like the real ones: random schedules, each from
//! a seed, and a judge that knows only what was committed and what is on the topics.
//!
//! | file | what it is |
//! |---|---|
//! | `setup` | what a run is made of |
//! | `rows`, `store`, `statements` | Postgres: snapshots, leases, asynchronous commits, crashes |
//! | `broker` | Kafka and the client in front of it |
//! | `publisher`, `world` | relays, what they have under way, and how it is carried out |
//! | `schedule`, `steps`, `faults` | what may happen next, and what it does |
//! | `run`, `judge` | a run from its seed to its verdict; what is promised |
//! | `points` | where a process was when it crashed or was overtaken |
//! | `outages` | an hour without the broker, and without the database |
//! | `wrong_rules` | each rule switched off: it must be missed |
//! | `conformance` | the store answers as Postgres does |

mod broker;
#[cfg(test)]
mod conformance;
mod faults;
mod judge;
#[cfg(test)]
mod outages;
pub(crate) mod points;
mod publisher;
mod rows;
pub(crate) mod run;
mod schedule;
pub(crate) mod setup;
mod statements;
mod steps;
mod store;
#[cfg(test)]
mod tests;
mod world;
pub(crate) mod wrong_rules;
