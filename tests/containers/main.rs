//! What only containers can show: our own images, on a private network with Kafka and Postgres, as they are
//! deployed, under load, and then each part of that paused, killed, cut off, replaced.
//!
//! Each test has a deployment of its own and ends with the invariants, read back from Kafka and Postgres.
//! They run on `STACK=containers` only.

mod cut_off;
mod deployment;
mod images;
mod killed;
mod paused;
mod replaced;
mod replica;
mod shipped;
