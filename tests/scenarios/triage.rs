//! The triage service on real Kafka and Postgres: claimed once, decided once, in order, whatever breaks.
//!
//! | module | shows |
//! |---|---|
//! | [`claiming`] | which records are one event, and what becomes of another body |
//! | [`conformance`] | that the inbox keeps to its port, case by case as the simulated one does |
//! | [`dead_letters`] | what is set aside, byte for byte, and the way back |
//! | [`gathering`] | records that come one by one share transactions |
//! | [`hostile`] | records that nobody should write |
//! | [`crashing`] | ends of a transaction that nobody has seen |
//! | [`rebalancing`] | partitions that move, from the living and from the dead |
//! | [`outages`] | Postgres and Kafka that are away for a while |
//! | [`leaves`] | leaves of claims, decisions and outbox that are missing, late or old |
//! | [`traces`] | a trace that crosses both services |
//!
//! [`scene`] is what they share. Each ends with [`scene::Scene::end`]: the service drains, a publisher
//! publishes what is left, and the harness' judge reads everything back.

mod claiming;
mod conformance;
mod crashing;
mod dead_letters;
mod gathering;
mod hostile;
mod leaves;
mod outages;
mod rebalancing;
pub(crate) mod scene;
mod traces;
