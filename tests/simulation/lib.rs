//! The real relay and the real intake on a store, a broker and a group in memory that lie like the real ones.
//! A seed draws the rows, the schedule and what goes wrong; a judge knows only what was committed and what is
//! on the topics.
//!
//! | module | what it is |
//! |---|---|
//! | [`campaign`] | many seeds, their coverage, and one seed again: what `make simulate` does |
//! | [`trial`] | the same for a decision logic of your own |
//! | `relay`, `intake` | the two simulations, each from its rows to its judge |
//! | `shrink` | the fewest faults and rows with which a seed still fails |
//! | [`chance`], [`coverage`], `runs` | where all is drawn from, what was met, runs on two threads |
//! | [`inbox`], [`outbox`] | the conformance suites of the ports, which Postgres passes as well |

pub mod campaign;
pub mod chance;
pub mod coverage;
pub mod inbox;
mod intake;
pub mod outbox;
mod relay;
mod runs;
mod shrink;
pub mod trial;
