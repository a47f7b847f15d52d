//! What triage knows, without any IO: values in, values out.
//!
//! A [`record::Record`] is read into a [`case::Reading`]; the [`policy::PolicySet`] decides its case;
//! [`outcome`] and [`dead_letter`] say what is then written to the outbox.

pub mod case;
pub mod dead_letter;
pub mod decision;
pub mod outcome;
pub mod policy;
pub mod record;
pub mod rule;
