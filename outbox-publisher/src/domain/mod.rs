//! What is decided without IO: facts in, bounds and next steps out.

pub mod event;
pub mod marks;
pub mod retry;
pub mod rules;
pub mod share;
pub mod tenancy;
pub mod topic;
