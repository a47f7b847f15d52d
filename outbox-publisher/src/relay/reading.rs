//! From where each bucket is read, and what a read means.

use std::collections::BTreeMap;
use std::time::Duration;

use super::shares::Shares;
use super::{Command, Op, Reading, Relay};
use crate::domain::event::OutboxEvent;
use crate::domain::rules::Rule;
use crate::domain::tenancy::{Item, Tenancy};
use crate::ports::{ReadAnswer, ReadBucket, ReadRequest};

/// While there is no backlog, a read takes so small a part of the time: one that finds a few rows costs as much as one
/// that finds hundreds, and so do the batches made of them. On a busy machine reads take longer, and are further apart.
const READ_PART: u32 = 3;
/// For each so many rows found, one part more: with many rows the batches matter more than the wait.
const READ_PART_ROWS: usize = 128;
/// Longest time from one read to the next on that account.
const READ_APART_MAX: Duration = Duration::from_millis(25);
/// Full rings are looked at again so often, for the settled rows to leave them.
const CLEAR_PAUSE: Duration = Duration::from_millis(5);

impl Relay {
    pub(super) fn read(&mut self, now: Duration, commands: &mut Vec<Command>) {
        if self.reading.is_some() || now < self.next_read || self.tenancies.is_empty() {
            return;
        }
        let has_room = self.has_room();
        let is_sweep = now >= self.next_sweep;
        let (mut rows, mut wanted) = (0, 0);
        let mut usual = BTreeMap::new();
        let mut buckets: Vec<ReadBucket> = Vec::with_capacity(self.tenancies.len());
        let mut basis = self.marks.begin_read();
        if !self.rules.hold(Rule::OneCursor) {
            basis.floors.clear();
        }
        let sweeps_late = !self.rules.hold(Rule::OneCursor) && self.op.is_multiple_of(3);
        let shares = Shares::of(self);
        for tenancy in self.tenancies.values() {
            let share = shares.share(tenancy);
            wanted += share;
            let limit = if has_room && !tenancy.is_draining {
                self.room(tenancy).min(share)
            } else {
                0
            };
            if limit == 0 && !self.rules.hold(Rule::ReadEveryBucket) {
                continue;
            }
            rows += limit;
            let mut bound = tenancy.cursor.min(self.base(tenancy, basis.base));
            if is_sweep {
                usual.insert(tenancy.bucket, bound);
            }
            if is_sweep || sweeps_late {
                bound = tenancy.low;
            } else if !self.rules.hold(Rule::OneCursor) {
                bound = tenancy.cursor;
            }
            buckets.push(ReadBucket {
                bucket: tenancy.bucket,
                epoch: tenancy.epoch,
                bound,
                low: tenancy.low,
                limit,
            });
        }
        // A small read costs as much as a large one: while rings are nearly full, wait for room.
        self.is_crowded = rows * 4 < wanted;
        if (self.is_crowded && now < self.last_read + CLEAR_PAUSE) || buckets.is_empty() {
            self.next_read = (self.last_read + CLEAR_PAUSE).max(now + self.config.poll_min);
            return;
        }
        // Each read begins with another bucket, so that a cut by bytes does not starve the last ones.
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn.unsigned_abs() as usize % buckets.len();
        buckets.rotate_left(turn);
        if is_sweep {
            self.next_sweep = now + self.config.sweep_interval;
        }
        let op = self.next_op();
        let request = ReadRequest {
            buckets,
            floors: basis.floors.clone(),
            bytes_max: self.config.read_bytes_max,
            is_sweep,
        };
        self.reading = Some(Reading {
            op,
            request: request.clone(),
            basis,
            usual,
        });
        self.last_read = now;
        self.is_woken = false;
        commands.push(Command::Read(op, request));
    }

    /// Whether the rows in hand leave memory for more.
    pub(super) fn has_room(&self) -> bool {
        self.tenancies.values().map(|tenancy| tenancy.ring_bytes).sum::<usize>() < self.config.instance_bytes_max
    }

    /// The mark that bounds a bucket: `low_id` as long as there is none.
    fn base(&self, tenancy: &Tenancy, base: Option<i64>) -> i64 {
        if tenancy.is_first_read {
            return if self.rules.hold(Rule::BoundBeforeMark) {
                tenancy.low
            } else {
                tenancy.cursor
            };
        }
        match base {
            Some(base) => base.max(tenancy.low),
            None if self.rules.hold(Rule::BoundBeforeMark) => tenancy.low,
            None => i64::MAX,
        }
    }

    /// A read has returned.
    pub fn read_done(&mut self, op: Op, answer: ReadAnswer, now: Duration) {
        if self.reading.as_ref().is_none_or(|reading| reading.op != op) {
            return; // begun before a loss: nothing of it counts
        }
        let Reading {
            request, basis, usual, ..
        } = self.reading.take().expect("just seen");
        if answer.life != self.life && self.rules.hold(Rule::NoticeRecovery) {
            self.store_lost(now);
            return;
        }
        self.sample = answer.sample; // also when it went back
        self.marks.finish_read(&basis, &answer.snapshot, now, &self.rules);
        let ended_floor = basis.ended_floor(&answer.snapshot);
        let found = answer.rows.len();
        let mut rows_of: BTreeMap<i16, Vec<OutboxEvent>> = BTreeMap::new();
        for row in answer.rows {
            rows_of.entry(row.bucket).or_default().push(row);
        }
        // Rows that come again until a mark is known to be complete tell nothing of more.
        let mut is_more = std::mem::take(&mut self.is_woken);
        let mut is_backlog = false;
        for asked in &request.buckets {
            if !answer.owned.contains(&asked.bucket) {
                self.lose(asked.bucket, asked.epoch);
                continue;
            }
            let rows = rows_of.remove(&asked.bucket).unwrap_or_default();
            let with_floor = |bound: i64| bound.min(ended_floor.unwrap_or(i64::MAX)).max(asked.low);
            let bound = with_floor(asked.bound);
            let usual = usual.get(&asked.bucket).map(|bound| with_floor(*bound));
            let is_limited = rows.len() >= asked.limit || answer.cut.contains(&asked.bucket);
            is_backlog |= is_limited;
            is_more |= self.take_rows(op, asked.bucket, asked.epoch, rows, bound, is_limited, usual);
        }
        self.poll_pause = if is_more {
            self.config.poll_min
        } else {
            (self.poll_pause * 2).min(self.config.poll_max)
        };
        let parts = READ_PART + u32::try_from(found / READ_PART_ROWS).unwrap_or(u32::MAX - READ_PART);
        let apart = now
            .saturating_sub(self.last_read)
            .saturating_mul(parts)
            .min(READ_APART_MAX);
        self.read_not_before = if is_backlog { now } else { self.last_read + apart };
        self.next_read = if is_more {
            self.read_not_before.max(now)
        } else {
            now + self.poll_pause
        };
    }

    /// Takes the rows of one bucket in hand. Whether one of them was new.
    #[expect(
        clippy::too_many_arguments,
        reason = "the facts of one bucket of one read, used once"
    )]
    fn take_rows(
        &mut self,
        op: Op,
        bucket: i16,
        epoch: i64,
        rows: Vec<OutboxEvent>,
        bound: i64,
        is_limited: bool,
        usual_bound: Option<i64>,
    ) -> bool {
        let limited_cursor = self.rules.hold(Rule::LimitedCursor);
        let topics: Vec<usize> = rows.iter().map(|row| self.topic_number(&row.topic)).collect();
        let Some(tenancy) = self.tenancies.get_mut(&bucket).filter(|tenancy| tenancy.epoch == epoch) else {
            return false;
        };
        let last = rows.last().map(|row| row.id);
        tenancy.cursor = match last {
            Some(last) if is_limited => last,
            Some(last) => tenancy.cursor.max(last),
            None if is_limited && limited_cursor => tenancy.cursor.min(bound),
            None => tenancy.cursor,
        };
        tenancy.is_limited = is_limited;
        tenancy.is_first_read = false;
        tenancy.forget_over(op);
        let (mut swept, mut has_new) = (0, false);
        for (row, topic) in rows.into_iter().zip(topics) {
            match tenancy.ring.get(&row.id) {
                Some(known) if known.is(&row) => continue,
                _ => {}
            }
            swept += u64::from(usual_bound.is_some_and(|usual| row.id <= usual));
            tenancy.insert(Item::new(row, topic, Duration::ZERO));
            has_new = true;
        }
        self.tally.swept += swept;
        has_new
    }

    /// The sequence moved and no settle will make a mark of it: make one.
    pub(super) fn mark(&mut self, now: Duration, commands: &mut Vec<Command>) {
        if !self.needs_mark() || now < self.next_mark {
            return;
        }
        let op = self.next_op();
        self.marking = Some(op);
        self.next_mark = now + self.config.mark_pause;
        commands.push(Command::Mark(op));
    }

    pub(super) fn needs_mark(&self) -> bool {
        let has_settle = self.settling.is_some() || !self.acked.is_empty();
        let is_behind = self.marks.newest().is_none_or(|mark| mark < self.sample);
        self.marking.is_none() && is_behind && !has_settle && !self.tenancies.is_empty()
    }

    /// The sample of a [`Command::Mark`] whose own transaction has committed.
    pub fn mark_done(&mut self, op: Op, sample: i64) {
        if self.marking == Some(op) {
            self.marking = None;
            self.marks.complete(sample);
        }
    }

    pub(super) fn look_at_locks(&mut self, now: Duration, commands: &mut Vec<Command>) {
        if self.locking.is_some() || now < self.next_locks {
            return;
        }
        let long = self.marks.long_running(now);
        if long.is_empty() {
            return;
        }
        let op = self.next_op();
        self.locking = Some(op);
        self.next_locks = now + crate::domain::marks::LONG_TRANSACTION;
        commands.push(Command::Locks(op, long));
    }

    /// Which of the transactions asked about held no lock on the outbox, after `sample` was taken.
    pub fn locks_done(&mut self, op: Op, sample: i64, without_lock: &[u64]) {
        if self.locking == Some(op) {
            self.locking = None;
            self.marks.raise(sample, without_lock, &self.rules);
        }
    }

    /// A statement was refused by a server that is well: it is tried again after a pause.
    ///
    /// For reads, looks, marks, lock look-ups and control only; see [`Relay::settle_refused`] and
    /// [`Relay::change_refused`] for the others.
    pub fn refused(&mut self, op: Op, now: Duration) {
        let at = now + self.config.poll_max;
        if self.reading.as_ref().is_some_and(|reading| reading.op == op) {
            self.reading = None;
            self.next_read = at;
        } else if self.looking.as_ref().is_some_and(|looking| looking.op == op) {
            self.looking = None;
            self.next_look = at;
        } else if self.marking == Some(op) {
            self.marking = None;
            self.next_mark = at;
        } else if self.locking == Some(op) {
            self.locking = None;
        } else {
            self.control_refused(op, at);
        }
    }
}
