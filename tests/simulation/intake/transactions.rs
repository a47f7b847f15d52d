//! Transactions and the connections that they are on: a statement is sent, waits for another's end, is answered or not.

use shared::id::EventId;
use triage_service::domain::dead_letter::Reason;
use triage_service::domain::outcome::OutboxEvent;
use triage_service::intake::inbox::{Claim, StandingClaim};

use crate::intake::judge::Appended;
use crate::intake::points::Points;
use crate::intake::store::Store;

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
    pub(crate) touched: Vec<EventId>,
    pub(crate) won: Vec<EventId>,
    pub(crate) decisions: Vec<EventId>,
    pub(crate) appended: Vec<Appended>,
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

    /// Waits for the end of another, unless that one waits for ours.
    pub(crate) fn wait(&mut self, x: usize, other: usize) -> Option<Result<Reply, Trouble>> {
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
    pub(crate) fn has_waited(&mut self, x: usize) -> bool {
        std::mem::take(&mut self.transactions[x].has_waited)
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
}
