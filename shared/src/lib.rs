//! What both services share.
//!
//! Nothing here depends on either service. A thing enters this crate with its second user.
//!
//! - the contract: [`id`], [`envelope`], [`hash`], [`headers`]
//! - writing events beside a business change: [`outbox`], [`doorbell`]
//! - a process: [`cause`], [`cli`], [`config`], [`telemetry`], [`health`], [`shutdown`]
//! - its neighbours: [`kafka`], [`postgres`], [`retry`], [`clock`]

pub mod cause;
pub mod cli;
pub mod clock;
pub mod config;
pub mod doorbell;
pub mod envelope;
pub mod hash;
pub mod headers;
pub mod health;
pub mod id;
pub mod kafka;
pub mod outbox;
pub mod postgres;
pub mod retry;
pub mod shutdown;
pub mod telemetry;
