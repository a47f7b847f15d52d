//! Marking what is on its topic.

use std::time::Duration;

use uuid::Uuid;

use super::{Command, Op, Relay};
use crate::domain::event::LaneKey;
use crate::domain::rules::Rule;
use crate::domain::tenancy::Progress;
use crate::ports::SettleRow;

/// A row that is on its topic and not yet marked.
#[derive(Debug, Clone)]
pub(super) struct Acked {
    pub(super) bucket: i16,
    pub(super) epoch: i64,
    pub(super) id: i64,
    pub(super) event_id: Uuid,
    pub(super) side: Option<LaneKey>,
}

/// A settle under way.
#[derive(Debug)]
pub(super) struct Settle {
    op: Op,
    /// What the sequence stood at before it was sent: a mark, once it has changed a row.
    sample: i64,
    rows: Vec<Acked>,
}

impl Relay {
    pub(super) fn settle(&mut self, now: Duration, commands: &mut Vec<Command>) {
        if self.settling.is_some() || self.acked.is_empty() || now < self.next_settle {
            return;
        }
        let is_full = self.acked.len() >= self.config.settle_rows_max;
        let is_due = now >= self.acked_since + self.config.settle_delay;
        if !(is_full || is_due || self.is_draining || self.settle_before_taking) {
            return;
        }
        let count = self.acked.len().min(self.config.settle_rows_max);
        let mut rows: Vec<Acked> = self.acked.drain(..count).collect();
        self.acked_since = now;
        rows.sort_unstable_by_key(|row| (row.id, row.bucket)); // pages are met in order
        let op = self.next_op();
        for row in &rows {
            self.set_settling(row, Progress::Settling);
        }
        let request = rows
            .iter()
            .map(|r| SettleRow {
                bucket: r.bucket,
                id: r.id,
                event_id: r.event_id,
            })
            .collect();
        self.settling = Some(Settle {
            op,
            sample: self.sample,
            rows,
        });
        commands.push(Command::Settle(op, request));
    }

    fn set_settling(&mut self, row: &Acked, progress: Progress) {
        let Some(tenancy) = self.tenancy(row.bucket, row.epoch) else {
            return;
        };
        if let Some(item) = tenancy.find(row.id, row.event_id, row.side.as_ref()) {
            item.progress = progress;
        }
    }

    /// Rows were marked PUBLISHED; `changed` of them had not been.
    pub fn settle_done(&mut self, op: Op, changed: u64) {
        if self.settling.as_ref().is_none_or(|settle| settle.op != op) {
            return;
        }
        let settle = self.settling.take().expect("just seen");
        if changed > 0 {
            self.marks.complete(settle.sample); // one that changed nothing drew no xid: no mark
        }
        self.tally.settled += changed;
        if self.is_crowded {
            self.next_read = Duration::ZERO; // the next read lets these rows go, and there is room
        }
        let later = self.op + 1;
        let is_early = !self.rules.hold(Rule::RingUntilRead);
        let side_waits = self.rules.hold(Rule::SideUntilLook);
        for row in &settle.rows {
            if let (Some(key), false) = (&row.side, side_waits) {
                if let Some(blocked) = self.tenancy(row.bucket, row.epoch).and_then(|t| t.blocked.get_mut(key)) {
                    blocked.side.remove(&row.id);
                }
                continue;
            }
            if is_early && row.side.is_none() {
                if let Some(tenancy) = self.tenancy(row.bucket, row.epoch) {
                    tenancy.remove(row.id);
                }
                continue;
            }
            self.set_settling(row, Progress::Settled(later));
        }
        if settle.rows.iter().any(|row| row.side.is_some()) {
            self.next_look = Duration::ZERO; // more of the key may wait, or it is free
        }
    }

    /// A settle was refused by a server that is well: it is sent again after a pause.
    pub fn settle_refused(&mut self, op: Op, now: Duration) {
        if self.settling.as_ref().is_some_and(|settle| settle.op == op) {
            let settle = self.settling.take().expect("just seen");
            self.unsettle(settle, now);
            self.next_settle = now + self.config.poll_max;
        }
    }

    pub(super) fn unsettle(&mut self, settle: Settle, now: Duration) {
        for row in &settle.rows {
            self.set_settling(row, Progress::Acked);
        }
        self.acked.extend(settle.rows);
        self.acked_since = now;
    }
}
