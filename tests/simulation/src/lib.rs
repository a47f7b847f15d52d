//! What the simulations and the scenarios share: the conformance suites of the ports.

pub mod outbox;
