//! The store in Postgres, the count of what waits, and the upkeep of its tables. SQL stands in this module
//! and in `queries/` alone.

pub mod backlog;
mod connection;
pub(crate) mod maintenance;
pub mod store;

pub use store::PostgresStore;
