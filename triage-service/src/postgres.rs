//! Postgres behind the intake: the inbox, and the upkeep of its tables.

mod inbox;
pub mod maintenance;

pub use inbox::{InboxOptions, PgInbox};
