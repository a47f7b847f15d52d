//! The store as the intake sees it: each call waits until the schedule has served it.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use anyhow::anyhow;
use shared::id::EventId;
use triage_service::domain::dead_letter::Reason;
use triage_service::domain::outcome::{DecisionRow, OutboxEvent};
use triage_service::intake::inbox::{Claim, Inbox, InboxError, InboxTransaction, StandingClaim};

use crate::intake::store::Store;
use crate::intake::transactions::{Call, Decided, Phase, Reply, Trouble};

/// The store, shared by all that speak to it.
#[derive(Debug, Clone)]
pub(crate) struct SharedStore(Arc<Mutex<Store>>);

impl SharedStore {
    pub(crate) fn new(store: Store) -> Self {
        Self(Arc::new(Mutex::new(store)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection for one attempt.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) store: SharedStore,
    pub(crate) transaction: usize,
}

/// Its transaction. Dropped before its end, it leaves an orphan behind.
#[derive(Debug)]
pub(crate) struct Open {
    store: SharedStore,
    transaction: usize,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut store = self.store.lock();
        if store.transactions[self.transaction].phase == Phase::Open {
            store.orphan(self.transaction);
        }
    }
}

async fn call(store: &SharedStore, transaction: usize, call: Call) -> Result<Reply, InboxError> {
    store.lock().send(transaction, call);
    let answer = poll_fn(|_| match store.lock().transactions[transaction].answer.take() {
        Some(answer) => Poll::Ready(answer),
        None => Poll::Pending,
    });
    answer.await.map_err(|trouble| match trouble {
        Trouble::Data => InboxError::Data {
            code: "22021".to_owned(),
            source: anyhow!("refused"),
        },
        Trouble::LockTimeout => InboxError::LockTimeout(anyhow!("55P03")),
        Trouble::Unavailable => InboxError::Unavailable(anyhow!("connection lost")),
        Trouble::Unclear => InboxError::Unclear(anyhow!("connection lost")),
    })
}

impl Inbox for Connection {
    type Transaction = Open;

    async fn begin(&self) -> Result<Open, InboxError> {
        call(&self.store, self.transaction, Call::Begin).await?;
        Ok(Open {
            store: self.store.clone(),
            transaction: self.transaction,
        })
    }
}

impl Open {
    async fn call(&self, statement: Call) -> Result<Reply, InboxError> {
        call(&self.store, self.transaction, statement).await
    }
}

impl InboxTransaction for Open {
    async fn claim(&mut self, claims: &[Claim]) -> Result<Vec<EventId>, InboxError> {
        match self.call(Call::Claim(claims.to_vec())).await? {
            Reply::Claimed(ours) => Ok(ours),
            other => unreachable!("{other:?} answers no claim"),
        }
    }

    async fn take_over(&mut self, claim: &Claim) -> Result<bool, InboxError> {
        match self.call(Call::TakeOver(claim.clone())).await? {
            Reply::Taken(is_taken) => Ok(is_taken),
            other => unreachable!("{other:?} answers no take-over"),
        }
    }

    async fn set_aside(&mut self, claims: &[(EventId, Reason)]) -> Result<(), InboxError> {
        self.call(Call::SetAside(claims.to_vec())).await.map(drop)
    }

    async fn conflicts(&mut self, ids: &[EventId]) -> Result<Vec<StandingClaim>, InboxError> {
        match self.call(Call::Conflicts(ids.to_vec())).await? {
            Reply::Standing(claims) => Ok(claims),
            other => unreachable!("{other:?} answers no read"),
        }
    }

    async fn append(&mut self, decisions: &[DecisionRow], events: &[OutboxEvent]) -> Result<(), InboxError> {
        let decided = |row: &DecisionRow| Decided {
            event_id: row.event_id,
            digest: row.output_digest,
        };
        let decisions = decisions.iter().map(decided).collect();
        self.call(Call::Append(decisions, events.to_vec())).await.map(drop)
    }

    async fn commit(self) -> Result<(), InboxError> {
        self.call(Call::Commit).await.map(drop)
    }

    async fn roll_back(self) {
        let _ = self.call(Call::RollBack).await; // a connection that is gone rolls back by itself
    }
}
