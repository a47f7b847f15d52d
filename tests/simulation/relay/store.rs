//! A Postgres of a few rows that lies like the real one.
//!
//! Writers draw transaction ids before row ids and stay open; a snapshot names running transactions only
//! below the last completed one; commits may be asynchronous, and a crash takes those back, the sequence
//! and the transaction ids with them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chance::Chance;
use outbox_publisher::domain::event::OutboxEvent;
use outbox_publisher::domain::marks::{Snapshot, Xid};
use uuid::Uuid;

use crate::relay::rows::{Event, Lease, Phase, Poison, Row, State, Status, Transaction};
use crate::relay::setup::StoreRule;

/// Ids per leaf.
const LEAF_ROWS: i64 = 3;

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) off: Option<StoreRule>,
    pub(crate) events: Vec<Event>,
    pub(crate) rows: Vec<Row>,
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) leases: BTreeMap<i16, Lease>,
    pub(crate) sequence: i64,
    durable_sequence: i64,
    next_xid: Xid,
    durable_xid: Xid,
    last_completed: Xid,
    lives: u128,
    /// The row of the UNLOGGED table; gone after a crash until somebody puts it there.
    pub(crate) life: Option<Uuid>,
    /// Ids at or below it are in leaves that are gone.
    pub(crate) dropped_upto: i64,
    is_scanned: bool,
    /// No statement reaches it.
    pub(crate) is_away: bool,
    /// The first promise that was seen broken.
    pub(crate) broken: Option<String>,
}

impl Store {
    pub(crate) fn new(off: Option<StoreRule>, buckets: &[i16], transactions: Vec<Transaction>) -> Self {
        Self {
            off,
            events: Vec::new(),
            rows: Vec::new(),
            transactions,
            leases: buckets.iter().map(|bucket| (*bucket, Lease::default())).collect(),
            sequence: 0,
            durable_sequence: 0,
            next_xid: 10,
            durable_xid: 10,
            last_completed: 9,
            lives: 0,
            life: None,
            dropped_upto: 0,
            is_scanned: false,
            is_away: false,
            broken: None,
        }
    }

    pub(crate) fn holds(&self, rule: StoreRule) -> bool {
        self.off != Some(rule)
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    pub(crate) fn is_visible(&self, row: &Row) -> bool {
        self.transactions[row.transaction].phase == Phase::Committed && !row.is_dropped
    }

    /// Committed rows that are not published: PENDING ones, and FAILED ones, those of the archive too.
    pub(crate) fn open_rows(&self, status: Status) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| {
            self.transactions[row.transaction].phase == Phase::Committed
                && row.now.status == status
                && (!row.is_dropped || status == Status::Failed)
        })
    }

    /// A synchronous commit makes all that committed before it durable.
    pub(crate) fn flush(&mut self) {
        for row in &mut self.rows {
            row.durable = row.now;
        }
        self.durable_sequence = self.sequence;
        self.durable_xid = self.next_xid;
        for transaction in &mut self.transactions {
            transaction.is_durable |= transaction.phase == Phase::Committed;
        }
    }

    /// A short transaction that changes something: it draws a transaction id and completes.
    pub(crate) fn complete_own(&mut self) {
        let xid = self.draw_xid();
        self.last_completed = self.last_completed.max(xid);
    }

    pub(crate) fn complete(&mut self, xid: Xid) {
        self.last_completed = self.last_completed.max(xid);
    }

    pub(crate) fn draw_xid(&mut self) -> Xid {
        let xid = self.next_xid;
        self.next_xid += 1;
        xid
    }

    fn draw_id(&mut self) -> i64 {
        self.sequence += 1;
        self.sequence
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let xmax = self.last_completed + 1;
        let is_named = |t: &&Transaction| t.phase == Phase::Running && t.xid > 0 && t.xid < xmax;
        Snapshot {
            xmax,
            running: self.transactions.iter().filter(is_named).map(|t| t.xid).collect(),
        }
    }

    /// The next step of a writer. `make` gives the row of a topic and key.
    pub(crate) fn write(
        &mut self,
        number: usize,
        step: u64,
        make: impl FnOnce(usize, usize, Option<usize>) -> (OutboxEvent, Poison),
    ) {
        let late_id = !self.holds(StoreRule::XidBeforeId);
        let transaction = &self.transactions[number];
        if transaction.phase == Phase::New {
            let draws = transaction.draws_xid_early && !late_id;
            self.transactions[number].phase = Phase::Running;
            if draws {
                self.transactions[number].xid = self.draw_xid();
            }
            return;
        }
        let Some((topic, key)) = transaction.plan.get(transaction.inserted).copied() else {
            return self.end(number, step);
        };
        if transaction.xid == 0 {
            if !late_id {
                self.transactions[number].xid = self.draw_xid();
                return;
            }
            if transaction.drawn_id.is_none() {
                self.transactions[number].drawn_id = Some(self.draw_id());
                return;
            }
        }
        let id = match self.transactions[number].drawn_id.take() {
            Some(id) => id,
            None => self.draw_id(),
        };
        if self.transactions[number].xid == 0 {
            self.transactions[number].xid = self.draw_xid();
        }
        if id <= self.dropped_upto {
            self.fail(format!("row {id} inserted into a leaf that was dropped"));
        }
        let event_number = self.events.len();
        let (mut event, poison) = make(event_number, topic, key);
        event.id = id;
        self.events.push(Event {
            topic,
            key,
            transaction: number,
            inserted_at: step,
            poison,
            is_at_fault: poison != Poison::None,
            has_failed: false,
            is_redriven: false,
            is_moved: false,
        });
        self.insert(event_number, number, event, 0);
        self.transactions[number].inserted += 1;
    }

    fn insert(&mut self, number: usize, transaction: usize, event: OutboxEvent, lane: u8) {
        let state = State {
            status: Status::Pending,
            lane,
            attempts: 0,
            due: Duration::ZERO,
        };
        self.rows.push(Row {
            number,
            transaction,
            event,
            now: state,
            durable: state,
            is_dropped: false,
        });
    }

    fn end(&mut self, number: usize, step: u64) {
        let transaction = &mut self.transactions[number];
        transaction.phase = if transaction.rolls_back {
            Phase::Aborted
        } else {
            Phase::Committed
        };
        transaction.committed_at = step;
        let (xid, is_flushed) = (transaction.xid, !transaction.rolls_back && !transaction.is_asynchronous);
        if xid > 0 {
            self.complete(xid);
            if is_flushed {
                self.flush();
            }
        }
    }

    /// An operator puts a FAILED row back. One whose leaf is gone is inserted again under a new id.
    pub(crate) fn redrive(&mut self, at: usize, step: u64) {
        let number = self.rows[at].number;
        let row = &mut self.rows[at];
        self.events[number].is_redriven = true;
        self.events[number].poison = Poison::None;
        row.event.headers = None;
        if row.is_dropped {
            row.now.status = Status::Published; // it has left the archive
            self.events[number].is_moved = true;
            let mut transaction = Transaction::new(usize::MAX, Vec::new());
            transaction.phase = Phase::Committed;
            transaction.committed_at = step;
            transaction.xid = self.draw_xid();
            self.complete(transaction.xid);
            self.transactions.push(transaction);
            let mut event = self.rows[at].event.clone();
            event.id = self.draw_id();
            self.insert(number, self.transactions.len() - 1, event, 1);
        } else {
            row.now = State {
                status: Status::Pending,
                lane: 1,
                attempts: 0,
                due: Duration::ZERO,
            };
            self.complete_own();
        }
        self.flush();
    }

    /// Whether the oldest leaf is below every low id and a scan of it would find only what is over, or
    /// has found so.
    pub(crate) fn may_drop_leaf(&self) -> bool {
        let upto = self.dropped_upto + LEAF_ROWS;
        let blocks = |row: &Row| is_in_leaf(row, upto) && self.is_visible(row) && row.now.status == Status::Pending;
        let is_below = self.leases.values().all(|lease| upto <= lease.low_id);
        self.is_scanned || (is_below && !self.rows.iter().any(blocks))
    }

    /// Drops the oldest leaf: scan and drop in one transaction. True if it went.
    pub(crate) fn drop_leaf(&mut self) -> bool {
        let upto = self.dropped_upto + LEAF_ROWS;
        if !self.holds(StoreRule::DropWithScan) && !self.is_scanned {
            self.is_scanned = true; // the drop comes in another transaction
            return false;
        }
        self.is_scanned = false;
        for at in 0..self.rows.len() {
            let row = &self.rows[at];
            if !is_in_leaf(row, upto) {
                continue;
            }
            match self.transactions[row.transaction].phase {
                Phase::Committed if row.now.status == Status::Pending => {
                    self.fail(format!("the drop of a leaf removed PENDING row {}", row.event.id));
                }
                Phase::Running => {
                    self.fail(format!(
                        "the drop of a leaf removed row {} of an open transaction",
                        row.event.id
                    ));
                }
                _ => {}
            }
            self.rows[at].is_dropped = true;
        }
        self.dropped_upto = upto;
        self.complete_own();
        self.flush();
        true
    }

    /// The server dies and recovers; perhaps without what no synchronous commit had made durable.
    pub(crate) fn crash(&mut self, chance: &mut Chance) {
        if chance.odds(2, 3) {
            for row in &mut self.rows {
                row.now = row.durable;
            }
            if chance.odds(1, 2) {
                self.sequence = self.durable_sequence;
                self.next_xid = self.durable_xid;
                for transaction in &mut self.transactions {
                    if transaction.phase == Phase::Committed && !transaction.is_durable {
                        transaction.phase = Phase::Aborted;
                    }
                }
            }
        }
        for transaction in &mut self.transactions {
            if transaction.phase == Phase::Running {
                transaction.phase = Phase::Aborted;
            }
        }
        self.flush();
        self.last_completed = self.next_xid - 1;
        self.life = None;
    }

    /// The life of the server, made when there is none.
    pub(crate) fn make_life(&mut self) -> Uuid {
        *self.life.get_or_insert_with(|| {
            self.lives += 1;
            Uuid::from_u128(self.lives)
        })
    }
}

fn is_in_leaf(row: &Row, upto: i64) -> bool {
    row.event.id > upto - LEAF_ROWS && row.event.id <= upto && !row.is_dropped
}
