//! The operator's tool, as a library that `main` and the tests call.
//!
//! - [`commands`]: what can be typed, and how it ends
//! - [`config`]: the services' settings under the prefix `CLAIMFIRST__`
//! - [`reconcile`]: proves a system right or wrong from its own data

pub mod commands;
pub mod config;
pub mod reconcile;
