//! What the simulations share with each other, their chance, and with the scenarios: the conformance suites
//! of the ports, one for the store of the intake and one for that of the relay.

pub mod chance;
pub mod inbox;
pub mod outbox;
