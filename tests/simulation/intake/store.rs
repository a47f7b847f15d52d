//! A database with open transactions: claims that wait for each other's end, statements that are served in
//! small steps, commits whose result nobody hears of.

use std::collections::BTreeMap;

use shared::id::EventId;
use triage_service::domain::dead_letter::Reason;
use triage_service::domain::outcome::OutboxEvent;
use triage_service::intake::inbox::{Claim, StandingClaim};

use crate::coverage::Coverage;
use crate::intake::judge::{Appended, Commit, Judge};
use crate::intake::points::Points;
use crate::intake::setup::OUTCOMES;

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

/// A transaction, and the connection it is on.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) phase: Phase,
    /// The statement that is being served.
    pub(crate) call: Option<Call>,
    /// What its client will hear.
    pub(crate) answer: Option<Result<Reply, Trouble>>,
    /// Its client is gone.
    pub(crate) is_orphan: bool,
    /// Whose end it waits for.
    pub(crate) waits_for: Option<usize>,
    pub(crate) is_committing: bool,
    /// Of the statement that was sent last.
    pub(crate) points: Option<Points>,
    /// The partitions of its records.
    pub(crate) partitions: Vec<i32>,
    pub(crate) progress: usize,
    has_waited: bool,
    touched: Vec<EventId>,
    won: Vec<EventId>,
    decisions: Vec<EventId>,
    appended: Vec<Appended>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Open,
    Committed,
    Aborted,
}

/// A statement.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Begin,
    Claim(Vec<Claim>),
    TakeOver(Claim),
    SetAside(Vec<(EventId, Reason)>),
    Conflicts(Vec<EventId>),
    Append(Vec<Decided>, Vec<OutboxEvent>),
    Commit,
    RollBack,
}

/// A decision: of which event, and the digest of what it says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decided {
    pub(crate) event_id: EventId,
    pub(crate) digest: [u8; 32],
}

/// What a statement gave.
#[derive(Debug)]
pub(crate) enum Reply {
    Done,
    Claimed(Vec<EventId>),
    Taken(bool),
    Standing(Vec<StandingClaim>),
}

/// Why a statement gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Data,
    LockTimeout,
    Unavailable,
    Unclear,
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

    /// A connection for one transaction.
    pub(crate) fn open(&mut self) -> usize {
        self.transactions.push(Transaction::default());
        self.transactions.len() - 1
    }

    pub(crate) fn open_ones(&self) -> impl Iterator<Item = (usize, &Transaction)> {
        self.transactions
            .iter()
            .enumerate()
            .filter(|(_, transaction)| transaction.phase == Phase::Open)
    }

    /// A statement arrives.
    pub(crate) fn send(&mut self, x: usize, call: Call) {
        let transaction = &mut self.transactions[x];
        transaction.progress = 0;
        transaction.has_waited = false;
        transaction.points = Some(Points::of(&call));
        transaction.is_committing = matches!(call, Call::Commit);
        if transaction.phase == Phase::Open && !transaction.is_orphan {
            transaction.call = Some(call);
        } else {
            transaction.answer = Some(Err(Trouble::Unavailable)); // the server ended the session before
        }
    }

    pub(crate) fn is_blocked(&self, x: usize) -> bool {
        self.transactions[x]
            .waits_for
            .is_some_and(|other| self.transactions[other].phase == Phase::Open)
    }

    /// Does one step of the statement in hand.
    pub(crate) fn serve(&mut self, x: usize) {
        let Some(call) = self.transactions[x].call.take() else {
            return;
        };
        self.transactions[x].waits_for = None;
        let result = if self.is_away {
            Some(Err(Trouble::Unavailable))
        } else {
            self.execute(x, &call)
        };
        match result {
            None => self.transactions[x].call = Some(call),
            Some(result) => {
                if result.is_err() {
                    self.abort(x);
                }
                if !self.transactions[x].is_orphan {
                    self.transactions[x].answer = Some(result);
                }
            }
        }
    }

    /// `None` while there is more to do, or to wait for.
    fn execute(&mut self, x: usize, call: &Call) -> Option<Result<Reply, Trouble>> {
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

    fn wait(&mut self, x: usize, other: usize) -> Option<Result<Reply, Trouble>> {
        self.transactions[x].waits_for = Some(other);
        self.transactions[x].has_waited = true;
        let mut at = other;
        while let Some(next) = self.transactions[at].waits_for.filter(|_| self.is_blocked(at)) {
            if next == x {
                self.judge
                    .broken
                    .get_or_insert(format!("DEADLOCK of transactions {x} and {at}"));
                return Some(Err(Trouble::Unavailable));
            }
            at = next;
        }
        None
    }

    /// Whether the id in hand is one that it waited for.
    fn has_waited(&mut self, x: usize) -> bool {
        std::mem::take(&mut self.transactions[x].has_waited)
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

    /// The client leaves: what it sent is served all the same, until the server notices.
    pub(crate) fn orphan(&mut self, x: usize) {
        self.transactions[x].is_orphan = true;
    }

    /// The connection is cut: an orphan, and a client that does not know what became of its statement.
    pub(crate) fn cut(&mut self, x: usize) {
        self.orphan(x);
        let transaction = &mut self.transactions[x];
        transaction.answer = Some(Err(if transaction.is_committing {
            Trouble::Unclear
        } else {
            Trouble::Unavailable
        }));
    }

    /// Whether it is committed and its client does not know.
    pub(crate) fn has_unheard_commit(&self, x: usize) -> bool {
        self.transactions[x].phase == Phase::Committed
    }

    /// The server ends the session: nothing is stored, and its client may hear that or not.
    pub(crate) fn terminate(&mut self, x: usize, trouble: Trouble) {
        let had_call = self.transactions[x].call.is_some();
        self.abort(x);
        let transaction = &mut self.transactions[x];
        if had_call && !transaction.is_orphan {
            let trouble = if transaction.is_committing {
                trouble
            } else {
                Trouble::Unavailable
            };
            transaction.answer = Some(Err(trouble));
        }
    }

    /// The lock timeout of a statement that waits.
    pub(crate) fn time_out(&mut self, x: usize) {
        self.abort(x);
        if !self.transactions[x].is_orphan {
            self.transactions[x].answer = Some(Err(Trouble::LockTimeout));
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
