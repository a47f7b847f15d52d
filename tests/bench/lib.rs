//! Measures the services against the limit that Postgres and Kafka set, and against what others do, in one run.
//!
//! | module | has |
//! |---|---|
//! | [`site`], [`fill`] | servers as in production; what is there before a round |
//! | [`peers`] | who is measured beside the services: bare clients, others' designs |
//! | [`course`], [`ends`], [`cpu`] | what a round took, by row: time, CPU by process, log |
//! | [`least`] | the least log that its rows can cost |
//! | [`open_loop`], [`appended`] | when events are due in an open loop, and when the broker has them |
//! | [`parts`] | what is measured, and how it is judged |
//! | [`guard`] | what CI asks of a short run |
//! | [`report`], [`table`], [`plot`] | the result, for people and machines |

pub mod appended;
pub mod counted;
pub mod course;
pub mod cpu;
pub mod ends;
mod figures;
pub mod fill;
pub mod guard;
pub mod least;
pub mod open_loop;
pub mod parts;
pub mod peers;
pub mod plot;
pub mod report;
pub mod site;
pub mod table;
