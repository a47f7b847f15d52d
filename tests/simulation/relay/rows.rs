//! What the simulated database holds: rows, the transactions of their writers, leases.

use std::time::Duration;

use outbox_publisher::domain::event::OutboxEvent;
use outbox_publisher::domain::marks::Xid;

/// What a row's sending meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Poison {
    /// Nothing.
    None,
    /// The broker refuses it so often (9 is for ever).
    Broker(u8),
    /// The client refuses it so often.
    Client(u8),
    /// It cannot be sent at all, as its stored headers show.
    Unsendable,
}

/// What the judge knows of an event, whatever rows stood for it.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) topic: usize,
    pub(crate) key: Option<usize>,
    pub(crate) transaction: usize,
    pub(crate) inserted_at: u64,
    pub(crate) poison: Poison,
    /// Whether what goes wrong with it may ever be counted against it.
    pub(crate) is_at_fault: bool,
    pub(crate) has_failed: bool,
    pub(crate) is_redriven: bool,
    /// Put back from the archive under a new id: it has lost its place.
    pub(crate) is_moved: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Pending,
    Published,
    Failed,
}

/// What an asynchronous commit may lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) status: Status,
    pub(crate) lane: u8,
    pub(crate) attempts: u32,
    pub(crate) due: Duration,
}

#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) number: usize, // of its event
    pub(crate) transaction: usize,
    pub(crate) event: OutboxEvent,
    pub(crate) now: State,
    pub(crate) durable: State,
    /// Its leaf is gone; a FAILED row lives on in the archive.
    pub(crate) is_dropped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    New,
    Running,
    Committed,
    Aborted,
}

#[derive(Debug, Clone)]
pub(crate) struct Transaction {
    pub(crate) phase: Phase,
    pub(crate) xid: Xid, // 0 until it has one
    pub(crate) committed_at: u64,
    /// Topic and key of each row to insert.
    pub(crate) plan: Vec<(usize, Option<usize>)>,
    pub(crate) inserted: usize,
    pub(crate) draws_xid_early: bool,
    pub(crate) rolls_back: bool,
    pub(crate) is_asynchronous: bool,
    pub(crate) is_durable: bool,
    pub(crate) drawn_id: Option<i64>,
    /// Its transactions follow one another.
    pub(crate) slot: usize,
}

impl Transaction {
    pub(crate) fn new(slot: usize, plan: Vec<(usize, Option<usize>)>) -> Self {
        Self {
            phase: Phase::New,
            xid: 0,
            committed_at: 0,
            plan,
            inserted: 0,
            draws_xid_early: false,
            rolls_back: false,
            is_asynchronous: false,
            is_durable: false,
            drawn_id: None,
            slot,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::New | Phase::Running)
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Lease {
    pub(crate) owner: Option<u64>,
    pub(crate) epoch: i64,
    pub(crate) low_id: i64,
    pub(crate) until: Duration,
}
