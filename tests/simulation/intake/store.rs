//! A database and what the statements of its transactions do to it, in small steps: claims, decisions, outbox rows.

use std::collections::BTreeMap;

use shared::id::EventId;
use triage_service::domain::outcome::OutboxEvent;
use triage_service::intake::inbox::{Claim, StandingClaim};

use crate::coverage::Coverage;
use crate::intake::judge::{Appended, Commit, Judge};
use crate::intake::setup::OUTCOMES;
use crate::intake::transactions::{Call, Decided, Phase, Reply, Transaction, Trouble};

/// The server.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) now: u64,
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) claims: BTreeMap<EventId, Row>,
    pub(crate) judge: Judge,
    pub(crate) coverage: Coverage,
    /// No statement reaches it.
    pub(crate) is_away: bool,
    last_id: u64,
}

/// A claim.
#[derive(Debug)]
pub(crate) struct Row {
    held: Held,
    /// The transaction that inserted it, while that is open.
    inserted_by: Option<usize>,
    /// What an open transaction changes it into.
    update: Option<(usize, Held)>,
}

#[derive(Debug, Clone)]
struct Held {
    claim: Claim,
    is_set_aside: bool,
}

impl Store {
    pub(crate) fn new(judge: Judge) -> Self {
        Self {
            now: 0,
            transactions: Vec::new(),
            claims: BTreeMap::new(),
            judge,
            coverage: Coverage::default(),
            is_away: false,
            last_id: 0,
        }
    }

    /// Does a step of a statement; `None` while there is more to do, or to wait for.
    pub(crate) fn execute(&mut self, x: usize, call: &Call) -> Option<Result<Reply, Trouble>> {
        let done = Some(Ok(Reply::Done));
        match call {
            Call::Begin => done,
            Call::Claim(claims) => self.claim(x, claims),
            Call::TakeOver(claim) => self.take_over(x, claim),
            Call::SetAside(ids) => {
                for (id, _) in ids {
                    let row = self.claims.get_mut(id).expect("claimed in this transaction");
                    row.update.as_mut().map_or(&mut row.held, |(_, held)| held).is_set_aside = true;
                }
                done
            }
            Call::Conflicts(ids) => Some(Ok(Reply::Standing(
                ids.iter().filter_map(|id| self.standing(x, *id)).collect(),
            ))),
            Call::Append(decisions, events) => self.append(x, decisions, events),
            Call::Commit => {
                self.commit(x);
                done
            }
            Call::RollBack => {
                self.abort(x);
                done
            }
        }
    }

    /// One id at a time, so that transactions meet halfway.
    fn claim(&mut self, x: usize, claims: &[Claim]) -> Option<Result<Reply, Trouble>> {
        let Some(claim) = claims.get(self.transactions[x].progress) else {
            return Some(Ok(Reply::Claimed(self.transactions[x].won.clone())));
        };
        match self.claims.get(&claim.event_id).map(|row| row.writer()) {
            Some(Some(other)) => {
                self.coverage.hit("conflict: claim waits for another's");
                return self.wait(x, other);
            }
            Some(None) if self.has_waited(x) => {
                self.coverage
                    .hit("conflict: claim lost to the commit that it waited for");
            }
            Some(None) => {}
            None => {
                if self.has_waited(x) {
                    self.coverage.hit("conflict: claim won from a transaction that gave up");
                }
                let held = Held {
                    is_set_aside: claim.set_aside.is_some(),
                    claim: claim.clone(),
                };
                self.claims.insert(
                    claim.event_id,
                    Row {
                        held,
                        inserted_by: Some(x),
                        update: None,
                    },
                );
                self.transactions[x].touched.push(claim.event_id);
                self.transactions[x].won.push(claim.event_id);
            }
        }
        self.transactions[x].progress += 1;
        None
    }

    fn take_over(&mut self, x: usize, claim: &Claim) -> Option<Result<Reply, Trouble>> {
        let Some(row) = self
            .claims
            .get_mut(&claim.event_id)
            .filter(|row| row.inserted_by.is_none())
        else {
            return Some(Ok(Reply::Taken(false)));
        };
        if let Some(other) = row.writer() {
            self.coverage.hit("conflict: take-over of a claim waits for another's");
            return self.wait(x, other);
        }
        let is_taken = row.held.is_set_aside && row.held.claim.source != claim.source;
        if is_taken {
            row.update = Some((
                x,
                Held {
                    is_set_aside: claim.set_aside.is_some(),
                    claim: claim.clone(),
                },
            ));
            self.transactions[x].touched.push(claim.event_id);
            self.transactions[x].won.push(claim.event_id);
        }
        if !is_taken {
            self.coverage.hit("conflict: take-over of a claim lost");
        }
        Some(Ok(Reply::Taken(is_taken)))
    }

    /// The claim as the transaction sees it: committed, or its own.
    fn standing(&self, x: usize, id: EventId) -> Option<StandingClaim> {
        let row = self
            .claims
            .get(&id)
            .filter(|row| row.inserted_by.is_none_or(|by| by == x))?;
        let held = row
            .update
            .as_ref()
            .filter(|(by, _)| *by == x)
            .map_or(&row.held, |(_, held)| held);
        Some(StandingClaim {
            event_id: id,
            source: held.claim.source.clone(),
            digest: held.claim.digest,
            is_set_aside: held.is_set_aside,
        })
    }

    /// One outbox id at a time.
    fn append(&mut self, x: usize, decisions: &[Decided], events: &[OutboxEvent]) -> Option<Result<Reply, Trouble>> {
        if self.transactions[x].progress == 0 {
            let outcomes = events.iter().filter(|event| event.topic == OUTCOMES);
            for (event, decided) in outcomes.zip(decisions) {
                self.judge.note_decision(&event.source, decided.digest);
            }
        }
        let Some(event) = events.get(self.transactions[x].progress) else {
            self.transactions[x].decisions = decisions.iter().map(|decided| decided.event_id).collect();
            return Some(Ok(Reply::Done));
        };
        let is_outcome = event.topic == OUTCOMES;
        if is_outcome && self.judge.is_refused(&event.source) {
            return Some(Err(Trouble::Data));
        }
        self.last_id += 1;
        let (partition, offset) = (event.source.partition, event.source.offset);
        let appended = Appended {
            id: self.last_id,
            inserted_at: self.now,
            is_outcome,
            partition,
            offset,
        };
        self.transactions[x].appended.push(appended);
        self.transactions[x].progress += 1;
        None
    }

    fn commit(&mut self, x: usize) {
        let transaction = &mut self.transactions[x];
        transaction.phase = Phase::Committed;
        for id in &transaction.touched {
            let row = self.claims.get_mut(id).expect("open transactions keep their claims");
            row.inserted_by = None;
            if let Some((_, held)) = row.update.take() {
                row.held = held;
            }
        }
        let commit = Commit {
            transaction: x,
            at: self.now,
            claims: &transaction.won,
            decisions: &transaction.decisions,
            appended: &transaction.appended,
        };
        self.judge.note_commit(&commit);
    }

    /// Takes back what an open transaction did.
    pub(crate) fn abort(&mut self, x: usize) {
        let transaction = &mut self.transactions[x];
        if transaction.phase != Phase::Open {
            return;
        }
        transaction.phase = Phase::Aborted;
        transaction.call = None;
        for id in &transaction.touched {
            if self.claims[id].inserted_by == Some(x) {
                self.claims.remove(id);
            } else {
                self.claims.get_mut(id).expect("as above").update = None;
            }
        }
    }

    /// The offsets of the committed rows of the outbox, in the order of their ids.
    #[cfg(test)]
    pub(crate) fn appended(&self) -> Vec<i64> {
        let committed = self.transactions.iter().filter(|one| one.phase == Phase::Committed);
        let mut rows: Vec<Appended> = committed.flat_map(|one| one.appended.iter().copied()).collect();
        rows.sort_unstable_by_key(|row| row.id);
        rows.into_iter().map(|row| row.offset).collect()
    }

    /// Claims that retention may take: nobody is writing them.
    pub(crate) fn forgettable(&self) -> Vec<EventId> {
        self.claims
            .iter()
            .filter(|(_, row)| row.writer().is_none())
            .map(|(id, _)| *id)
            .collect()
    }

    /// Retention takes a claim.
    pub(crate) fn forget(&mut self, id: EventId) {
        self.claims.remove(&id);
        self.judge.forget(id);
    }
}

impl Row {
    /// The open transaction that writes it.
    fn writer(&self) -> Option<usize> {
        self.inserted_by.or(self.update.as_ref().map(|(by, _)| *by))
    }
}
