//! Scenarios on real servers, which break things on purpose.
//!
//! | module | shows |
//! |---|---|
//! | [`outbox`] | the rules of the tables: what is read, in which order, and what each statement changes |
//! | [`publisher`] | the publisher's process between Postgres and Kafka |
//! | [`triage`] | the triage service's process between Kafka and Postgres |

mod outbox;
mod publisher;
mod triage;
