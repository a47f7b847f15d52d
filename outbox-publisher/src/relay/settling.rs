//! Marking what is on its topic; retry, park and fail.

use std::time::Duration;

use uuid::Uuid;

use super::flights::Flight;
use super::{Command, Op, Relay};
use crate::domain::event::{LaneKey, Unsendable};
use crate::domain::retry::Next;
use crate::domain::rules::Rule;
use crate::domain::tenancy::{Item, Progress};
use crate::ports::{ChangeAnswer, ChangeKind, ChangeRequest, SettleRow};

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

/// A retry, park or fail that waits or is under way.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) request: ChangeRequest,
    pub(super) key: LaneKey,
    pub(super) is_side: bool,
    /// Of a fail: the label under which it is counted.
    pub(super) cause: &'static str,
}

/// The cause of a fail that came after the last attempt.
const ATTEMPTS: &str = "attempts";

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

    /// A failure that is the row's own.
    pub(super) fn row_failed(&mut self, flight: &Flight, reason: &str, now: Duration) {
        let Flight {
            bucket,
            epoch,
            id,
            event_id,
            ref side,
            ..
        } = *flight;
        let jitter = self.jitter();
        let policy = self.config.retry.clone();
        let Some(tenancy) = self.tenancy(bucket, epoch) else {
            return;
        };
        let Some(item) = tenancy.find(id, event_id, side.as_ref()) else {
            return;
        };
        let item = item.clone();
        let kind = match policy.after(item.attempts + 1, jitter) {
            Next::RetryAfter(pause) => ChangeKind::Retry {
                pause,
                error: reason.to_owned(),
            },
            Next::GiveUp => ChangeKind::Fail {
                error: reason.to_owned(),
            },
        };
        self.tally.attempts_failed += 1;
        self.begin_change(bucket, &item, side.as_ref(), kind, ATTEMPTS, now);
    }

    /// A fault of the row that sending cannot mend: set aside at once.
    pub(super) fn unsendable(
        &mut self,
        bucket: i16,
        item: &Item,
        side: Option<&LaneKey>,
        fault: &Unsendable,
        now: Duration,
    ) {
        self.tally.attempts_failed += 1;
        self.begin_change(
            bucket,
            item,
            side,
            ChangeKind::Fail {
                error: fault.to_string(),
            },
            fault.cause(),
            now,
        );
    }

    fn begin_change(
        &mut self,
        bucket: i16,
        item: &Item,
        side: Option<&LaneKey>,
        kind: ChangeKind,
        cause: &'static str,
        now: Duration,
    ) {
        let key = side.cloned().unwrap_or_else(|| LaneKey::of(&item.event));
        self.clear_suspects(bucket, &key);
        let Some(tenancy) = self.tenancies.get_mut(&bucket) else {
            return;
        };
        let epoch = tenancy.epoch;
        match side {
            None => tenancy.set(item.event.id, Progress::Changing),
            Some(_) => {
                if let Some(held) = tenancy.find(item.event.id, item.event.event_id, side) {
                    held.progress = Progress::Changing;
                }
            }
        }
        let blocked = tenancy.blocked.entry(key.clone()).or_default();
        blocked.is_recovering = false;
        let rows = vec![(item.event.id, item.event.event_id)];
        let request = ChangeRequest {
            bucket,
            epoch,
            kind,
            rows,
        };
        self.changes.push_back(Change {
            request,
            key,
            is_side: side.is_some(),
            cause,
        });
        self.next_change = self.next_change.min(now);
    }

    /// Rows of a key that is blocked are no suspects any more: they wait for its head, which may take
    /// minutes, and go through the probe whatever is thought of their topic.
    pub(super) fn clear_suspects(&mut self, bucket: i16, key: &LaneKey) {
        let (Some(tenancy), Some(number)) = (self.tenancies.get(&bucket), self.topic_numbers.get(key.topic())) else {
            return;
        };
        let topic = &mut self.topics[*number];
        let count = topic.suspects.len();
        topic.suspects.retain(|(of, id)| {
            let is_main = || tenancy.ring.get(id).is_some_and(|item| key.is_of(&item.event));
            let is_side = || {
                tenancy
                    .blocked
                    .get(key)
                    .is_some_and(|blocked| blocked.side.contains_key(id))
            };
            *of != bucket || !(is_main() || is_side())
        });
        if topic.suspects.len() < count {
            topic.is_suspect = !topic.suspects.is_empty();
        }
    }

    pub(super) fn change(&mut self, now: Duration, commands: &mut Vec<Command>) {
        if self.changing.is_some() || now < self.next_change {
            return;
        }
        while let Some(change) = self.changes.pop_front() {
            if self.tenancy(change.request.bucket, change.request.epoch).is_none() {
                continue; // its tenancy is over: the next owner reads what the rows are
            }
            let op = self.next_op();
            commands.push(Command::Change(op, change.request.clone()));
            self.changing = Some((op, change));
            return;
        }
    }

    /// Whether a change of this key waits or is under way, for rows that `concerns` names.
    pub(super) fn has_change(&self, bucket: i16, epoch: i64, key: &LaneKey, concerns: impl Fn(i64) -> bool) -> bool {
        self.changes
            .iter()
            .chain(self.changing.iter().map(|(_, change)| change))
            .any(|change| {
                change.request.bucket == bucket
                    && change.request.epoch == epoch
                    && change.key == *key
                    && change.request.rows.iter().any(|(id, _)| concerns(*id))
            })
    }

    /// A retry, park or fail has committed, or was fenced.
    pub fn change_done(&mut self, op: Op, answer: ChangeAnswer, now: Duration) {
        if self.changing.as_ref().is_none_or(|(running, _)| *running != op) {
            return;
        }
        let (_, change) = self.changing.take().expect("just seen");
        let Change {
            request,
            key,
            is_side,
            cause,
        } = change;
        let ChangeAnswer::Changed(changed) = answer else {
            self.lose(request.bucket, request.epoch);
            return;
        };
        match &request.kind {
            ChangeKind::Park => self.tally.parked += changed.len() as u64,
            ChangeKind::Fail { error } => {
                *self.tally.failed.entry(cause).or_default() += changed.len() as u64;
                for (_, event_id) in request.rows.iter().filter(|(id, _)| changed.contains(id)) {
                    let topic = key.topic();
                    tracing::error!(
                        event.id = %event_id, topic, cause,
                        "event {event_id} to topic {topic} is set aside as FAILED: {error}; mend the cause, then call outbox_redrive()"
                    );
                }
            }
            ChangeKind::Retry { .. } => {}
        }
        let later = self.next_op() + 1;
        let is_halt = self.config.halt_topics.is_on(key.topic());
        let keeps_parked = self.rules.hold(Rule::RingUntilReadAfterPark);
        self.next_look = Duration::ZERO;
        let Some(tenancy) = self.tenancy(request.bucket, request.epoch) else {
            return;
        };
        let blocked = tenancy.blocked.entry(key).or_default();
        blocked.changed_op = later;
        if matches!(request.kind, ChangeKind::Fail { .. }) && is_halt && !changed.is_empty() {
            let failed = request.rows[0].0;
            blocked.halted_at = Some(blocked.halted_at.map_or(failed, |at| at.min(failed)));
            blocked.halted_op = later;
        }
        for (id, _) in &request.rows {
            if is_side {
                let Some(item) = blocked.side.get_mut(id) else { continue };
                match &request.kind {
                    ChangeKind::Retry { pause, .. } if changed.contains(id) => {
                        item.progress = Progress::Queued;
                        item.attempts += 1;
                        item.due = now + *pause;
                    }
                    _ => item.progress = Progress::Settled(later),
                }
            } else if keeps_parked {
                if let Some(item) = tenancy.ring.get_mut(id) {
                    item.progress = Progress::Parked(later);
                }
            } else {
                tenancy.ring.remove(id);
            }
        }
    }

    /// A change whose outcome is not known, or that was refused: repeated until it is known.
    pub fn change_refused(&mut self, op: Op, now: Duration) {
        if self.changing.as_ref().is_some_and(|(running, _)| *running == op) {
            let (_, change) = self.changing.take().expect("just seen");
            self.next_change = now + self.config.poll_max;
            self.change_unknown(change);
        }
    }

    pub(super) fn change_unknown(&mut self, change: Change) {
        if self.rules.hold(Rule::RepeatUnknown) {
            self.changes.push_front(change);
            return;
        }
        let Change {
            request, key, is_side, ..
        } = change;
        let Some(tenancy) = self.tenancy(request.bucket, request.epoch) else {
            return;
        };
        for (id, _) in &request.rows {
            if is_side {
                if let Some(blocked) = tenancy.blocked.get_mut(&key) {
                    blocked.side.remove(id);
                }
            } else {
                tenancy.remove(*id);
            }
        }
    }
}
