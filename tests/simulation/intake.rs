//! The real intake of several members on a store and a group that lie like the real ones.
//!
//! Every answer of the store is a point at which the schedule may do something else first: serve another
//! transaction, cut the connection, move the partition, end the process.
//!
//! | file | what it is |
//! |---|---|
//! | `setup` | what a run is made of: its records, who decides |
//! | `store`, `transactions` | Postgres: statements in small steps; who waits for whom, and hears what |
//! | `inbox` | the port to it |
//! | `group` | the broker, and who has which partition |
//! | `member` | a process: the intake, its attempts, the consumer's thread |
//! | `schedule`, `world` | what may happen next, and what it does |
//! | `run`, `judge` | a run from its seed to its verdict; what is promised |
//! | `points` | where a member was when it ended or was overtaken |
//! | `safeguards` | frames with a safeguard switched off; `tests` shows that each is missed |
//! | `conformance` | the store answers as Postgres does |

#[cfg(test)]
mod conformance;
mod group;
mod inbox;
mod judge;
mod member;
pub(crate) mod points;
pub(crate) mod run;
pub(crate) mod safeguards;
mod schedule;
pub(crate) mod setup;
mod store;
#[cfg(test)]
mod tests;
mod transactions;
mod world;
