//! The store behind the intake: claims, decisions and outbox events.
//!
//! A claim is written in the transaction that stores its decision and its outbox events, never before.
//! Its presence therefore means that they exist.

use std::future::Future;

use shared::id::EventId;

use crate::domain::dead_letter::Reason;
use crate::domain::outcome::{DecisionRow, OutboxEvent};
use crate::domain::record::{ClaimDigest, Coordinates};

/// Opens transactions. Several may be open at a time.
pub trait Inbox: Send + Sync + 'static {
    /// One transaction.
    type Transaction: InboxTransaction;

    /// Begins a transaction.
    fn begin(&self) -> impl Future<Output = Result<Self::Transaction, InboxError>> + Send;
}

/// One transaction. Dropped without commit, it stores nothing.
///
/// The order of calls is claim (or take over), set aside, conflicts, append, commit: claims come before
/// any outbox id is drawn, so that an owner that was left behind makes its successor wait and the ids of
/// a key follow its offsets.
pub trait InboxTransaction: Send {
    /// Claims ids that nobody has claimed, in one statement and in the order given; waits for other
    /// transactions that are about to claim one of them. Answers which are ours now.
    fn claim(&mut self, claims: &[Claim]) -> impl Future<Output = Result<Vec<EventId>, InboxError>> + Send;

    /// Takes a claim over from another record that was set aside. False if there is none such (any more).
    fn take_over(&mut self, claim: &Claim) -> impl Future<Output = Result<bool, InboxError>> + Send;

    /// Marks claims of this transaction as set aside.
    fn set_aside(&mut self, claims: &[(EventId, Reason)]) -> impl Future<Output = Result<(), InboxError>> + Send;

    /// Reads the claims of these ids, this transaction's own among them. Missing ones are left out.
    fn conflicts(&mut self, ids: &[EventId]) -> impl Future<Output = Result<Vec<StandingClaim>, InboxError>> + Send;

    /// Stores decisions and outbox events. The events' ids ascend in the order given.
    fn append(
        &mut self,
        decisions: &[DecisionRow],
        events: &[OutboxEvent],
    ) -> impl Future<Output = Result<(), InboxError>> + Send;

    /// Commits. What stood in the claims that this transaction read is then as durable as what it wrote.
    fn commit(self) -> impl Future<Output = Result<(), InboxError>> + Send;

    /// Gives the transaction up.
    fn roll_back(self) -> impl Future<Output = ()> + Send;
}

/// A claim to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The claimed id.
    pub event_id: EventId,
    /// The id as it was written, where `event_id` is derived from it.
    pub event_id_text: Option<String>,
    /// The record that claims it.
    pub source: Coordinates,
    /// What duplicates are compared with.
    pub digest: ClaimDigest,
    /// Why its record is set aside, where that is known before it is claimed.
    pub set_aside: Option<Reason>,
}

/// A claim as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingClaim {
    /// The claimed id.
    pub event_id: EventId,
    /// The record that holds it.
    pub source: Coordinates,
    /// Digest of that record's value.
    pub digest: ClaimDigest,
    /// Whether that record was set aside, so that another one may take the claim over.
    pub is_set_aside: bool,
}

/// Why a transaction did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// The data of an event is at fault: nothing is stored, and nothing would be the next time.
    #[error("postgres refuses the data of an event ({code})")]
    Data {
        /// SQLSTATE and, where there is one, the constraint.
        code: String,
        /// What the server said.
        #[source]
        source: anyhow::Error,
    },
    /// A claim is held by a transaction that does not end. Nothing is stored.
    #[error("another transaction holds a claim")]
    LockTimeout(#[source] anyhow::Error),
    /// The store is in trouble. Nothing is stored.
    #[error("postgres is unavailable")]
    Unavailable(#[source] anyhow::Error),
    /// The commit was sent and its result is not known.
    #[error("commit of unknown result")]
    Unclear(#[source] anyhow::Error),
}
