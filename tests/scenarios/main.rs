//! Scenarios on real servers, which break things on purpose.
//!
//! | module | shows |
//! |---|---|
//! | [`documents`] | what the documents and the deployment files tell people to type |
//! | [`limits`] | what no promise covers, happening |
//! | [`outbox`] | the rules of the tables: what is read, in which order, and what each statement changes |
//! | [`publisher`] | the publisher's process between Postgres and Kafka |
//! | [`reconcile`] | that `claimfirst reconcile` finds damage, and none where there is none |
//! | [`triage`] | the triage service's process between Kafka and Postgres |

mod documents;
mod limits;
mod outbox;
mod publisher;
mod reconcile;
mod triage;
