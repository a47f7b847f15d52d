//! A store of one process: transactions one at a time, errors on demand.

use std::collections::HashMap;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::id::EventId;

use crate::domain::dead_letter::Reason;
use crate::domain::outcome::{DecisionRow, OutboxEvent};

use super::super::inbox::{Claim, Inbox, InboxError, InboxTransaction, StandingClaim};

/// What is committed.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    pub(super) claims: HashMap<EventId, StandingClaim>,
    pub(super) decisions: Vec<DecisionRow>,
    pub(super) events: Vec<OutboxEvent>,
}

/// The store. Shares its rows with its transactions.
#[derive(Debug, Default)]
pub(super) struct Store {
    rows: Arc<Mutex<Rows>>,
    /// Decisions on inputs whose bytes hold this are refused as data errors.
    refused: Option<&'static str>,
}

#[derive(Debug)]
pub(super) struct Open {
    committed: Arc<Mutex<Rows>>,
    rows: Rows,
    refused: Option<&'static str>,
}

impl Store {
    pub(super) fn refusing(text: &'static str) -> Self {
        Self {
            rows: Arc::default(),
            refused: Some(text),
        }
    }

    pub(super) fn rows(&self) -> MutexGuard<'_, Rows> {
        lock(&self.rows)
    }
}

fn lock(rows: &Mutex<Rows>) -> MutexGuard<'_, Rows> {
    rows.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox for Store {
    type Transaction = Open;

    async fn begin(&self) -> Result<Open, InboxError> {
        Ok(Open {
            committed: Arc::clone(&self.rows),
            rows: self.rows().clone(),
            refused: self.refused,
        })
    }
}

fn standing(claim: &Claim) -> StandingClaim {
    StandingClaim {
        event_id: claim.event_id,
        source: claim.source.clone(),
        digest: claim.digest,
        is_set_aside: claim.set_aside.is_some(),
    }
}

impl InboxTransaction for Open {
    async fn claim(&mut self, claims: &[Claim]) -> Result<Vec<EventId>, InboxError> {
        assert!(
            claims.is_sorted_by(|a, b| a.event_id < b.event_id),
            "sorted, and each id once"
        );
        let free = claims
            .iter()
            .filter(|claim| !self.rows.claims.contains_key(&claim.event_id));
        let ours: Vec<StandingClaim> = free.map(standing).collect();
        self.rows
            .claims
            .extend(ours.iter().map(|claim| (claim.event_id, claim.clone())));
        Ok(ours.into_iter().map(|claim| claim.event_id).collect())
    }

    async fn take_over(&mut self, claim: &Claim) -> Result<bool, InboxError> {
        let there = self.rows.claims.get(&claim.event_id);
        let is_free = there.is_some_and(|there| there.is_set_aside && there.source != claim.source);
        if is_free {
            self.rows.claims.insert(claim.event_id, standing(claim));
        }
        Ok(is_free)
    }

    async fn set_aside(&mut self, claims: &[(EventId, Reason)]) -> Result<(), InboxError> {
        for (event_id, _) in claims {
            self.rows.claims.get_mut(event_id).expect("claimed before").is_set_aside = true;
        }
        Ok(())
    }

    async fn conflicts(&mut self, ids: &[EventId]) -> Result<Vec<StandingClaim>, InboxError> {
        Ok(ids.iter().filter_map(|id| self.rows.claims.get(id).cloned()).collect())
    }

    async fn append(&mut self, decisions: &[DecisionRow], events: &[OutboxEvent]) -> Result<(), InboxError> {
        let is_refused = |row: &DecisionRow| {
            let input = String::from_utf8_lossy(row.input.as_deref().unwrap_or_default());
            self.refused.is_some_and(|text| input.contains(text))
        };
        if decisions.iter().any(is_refused) {
            return Err(InboxError::Data {
                code: "22021".to_owned(),
                source: anyhow::anyhow!("refused"),
            });
        }
        self.rows.decisions.extend_from_slice(decisions);
        self.rows.events.extend_from_slice(events);
        Ok(())
    }

    async fn commit(self) -> Result<(), InboxError> {
        *lock(&self.committed) = self.rows;
        Ok(())
    }

    fn roll_back(self) -> impl Future<Output = ()> + Send {
        ready(())
    }
}
