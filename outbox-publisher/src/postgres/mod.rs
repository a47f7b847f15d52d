//! The store in Postgres. SQL stands in this module and in `queries/` alone.

pub mod backlog;
mod connection;
pub mod store;

pub use store::PostgresStore;
