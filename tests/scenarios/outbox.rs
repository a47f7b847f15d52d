//! The outbox on a real Postgres: the store's statements and the real relay, moved step by step.
//!
//! | module | shows |
//! |---|---|
//! | [`reading`], [`trial`] | no late commit is passed or overtaken |
//! | [`side`] | a blocked key keeps its order |
//! | [`conformance`] | Postgres answers as the simulated store does |
//! | [`store`], [`plans`] | what each statement changes, and how Postgres runs it |
//! | [`crashes`] | a Postgres that comes back without its newest commits |
//! | [`leaves`] | leaves go only when nobody needs them |
//! | [`schema`] | hashes, headers and roles of the database |
//! | [`library`] | `shared::outbox` inside other people's transactions |
//!
//! [`rig`] carries out a relay's commands one by one; [`recorder`] is a broker that acknowledges at once.

mod conformance;
mod crashes;
mod fixture;
mod leaves;
mod library;
mod plans;
mod reading;
mod recorder;
mod rig;
mod schema;
mod side;
mod store;
mod trial;
