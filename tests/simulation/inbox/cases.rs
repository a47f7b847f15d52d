//! The cases. Each begins with an empty store.

#![allow(missing_docs)] // a case's name says what it shows

mod claiming;
mod crashes;

pub use claiming::*;
pub use crashes::*;
