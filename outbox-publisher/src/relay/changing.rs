//! Retry, park and fail: rows that leave lane 0, or wait longer in the side lane.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use uuid::Uuid;

use super::flights::Flight;
use super::{Command, Op, Relay};
use crate::domain::event::{LaneKey, Unsendable};
use crate::domain::retry::Next;
use crate::domain::rules::Rule;
use crate::domain::tenancy::{Item, Progress};
use crate::ports::{ChangeAnswer, ChangeKind, ChangeRequest, ChangeRow};

/// Rows of one statement at most, unless one change alone has more.
const ROWS_MAX: usize = 1000;

/// The cause of a fail that came after the last attempt.
const ATTEMPTS: &str = "attempts";

/// A retry, park or fail of rows of one key.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) bucket: i16,
    pub(super) epoch: i64,
    pub(super) key: LaneKey,
    pub(super) kind: ChangeKind,
    pub(super) rows: Vec<(i64, Uuid)>,
    pub(super) is_side: bool,
    /// Of a fail: the label under which it is counted.
    pub(super) cause: &'static str,
}

/// Changes of one bucket that are under way.
#[derive(Debug)]
pub(super) struct Changing {
    op: Op,
    bucket: i16,
    epoch: i64,
    changes: Vec<Change>,
}

/// Changes that wait, by bucket: what waits for a bucket goes in one statement, or thousands of keys of a
/// topic that takes nothing would cost a round trip each.
#[derive(Debug, Default)]
pub(super) struct Changes {
    waiting: BTreeMap<i16, VecDeque<Change>>,
    /// The bucket that had its turn last.
    last: i16,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn push(&mut self, change: Change) {
        self.waiting.entry(change.bucket).or_default().push_back(change);
    }

    pub(super) fn forget(&mut self, bucket: i16) {
        self.waiting.remove(&bucket);
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    fn of(&self, bucket: i16) -> impl Iterator<Item = &Change> {
        self.waiting.get(&bucket).into_iter().flatten()
    }

    /// Changes that must come before all others of their bucket.
    fn put_back(&mut self, changes: Vec<Change>) {
        for change in changes.into_iter().rev() {
            self.waiting.entry(change.bucket).or_default().push_front(change);
        }
    }

    /// What is first in line of the bucket whose turn it is, as much of it as one statement takes.
    fn take(&mut self) -> Option<Vec<Change>> {
        let after = (Excluded(self.last), Unbounded);
        let (bucket, _) = self
            .waiting
            .range(after)
            .next()
            .or_else(|| self.waiting.first_key_value())?;
        self.last = *bucket;
        let queue = self.waiting.get_mut(&self.last).expect("just seen");
        let mut rows = 0;
        let mut fits = |change: &Change| {
            rows += change.rows.len();
            rows <= ROWS_MAX
        };
        let count = queue.iter().take_while(|change| fits(change)).count().max(1);
        let taken = queue.drain(..count).collect();
        if queue.is_empty() {
            self.waiting.remove(&self.last);
        }
        Some(taken)
    }
}

impl Relay {
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
        self.changes.push(Change {
            bucket,
            epoch,
            key,
            kind,
            rows: vec![(item.event.id, item.event.event_id)],
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
        while let Some(mut changes) = self.changes.take() {
            // Of a tenancy that is over: the next owner reads what the rows are.
            changes.retain(|change| {
                self.tenancies
                    .get(&change.bucket)
                    .is_some_and(|t| t.epoch == change.epoch)
            });
            let Some(first) = changes.first() else { continue };
            let (bucket, epoch) = (first.bucket, first.epoch);
            let rows = changes.iter().flat_map(|change| {
                change.rows.iter().map(|(id, event_id)| ChangeRow {
                    id: *id,
                    event_id: *event_id,
                    kind: change.kind.clone(),
                })
            });
            let request = ChangeRequest {
                bucket,
                epoch,
                rows: rows.collect(),
            };
            let op = self.next_op();
            commands.push(Command::Change(op, request));
            self.changing = Some(Changing {
                op,
                bucket,
                epoch,
                changes,
            });
            return;
        }
    }

    /// Whether a change of this key waits or is under way, for rows that `concerns` names.
    pub(super) fn has_change(&self, bucket: i16, epoch: i64, key: &LaneKey, concerns: impl Fn(i64) -> bool) -> bool {
        let under_way = self.changing.iter().filter(|changing| changing.bucket == bucket);
        self.changes
            .of(bucket)
            .chain(under_way.flat_map(|changing| &changing.changes))
            .any(|change| {
                change.epoch == epoch && change.key == *key && change.rows.iter().any(|(id, _)| concerns(*id))
            })
    }

    /// Retries, parks and fails have committed, or were fenced.
    pub fn change_done(&mut self, op: Op, answer: ChangeAnswer, now: Duration) {
        if self.changing.as_ref().is_none_or(|changing| changing.op != op) {
            return;
        }
        let Changing {
            bucket, epoch, changes, ..
        } = self.changing.take().expect("just seen");
        let ChangeAnswer::Changed(changed) = answer else {
            self.lose(bucket, epoch);
            return;
        };
        let changed: BTreeSet<i64> = changed.into_iter().collect();
        self.next_look = Duration::ZERO;
        for change in changes {
            self.changed(change, &changed, now);
        }
    }

    /// One change has committed; `changed` are the ids that were PENDING.
    fn changed(&mut self, change: Change, changed: &BTreeSet<i64>, now: Duration) {
        let Change {
            bucket,
            epoch,
            key,
            kind,
            rows,
            is_side,
            cause,
        } = change;
        let hits = || rows.iter().filter(|(id, _)| changed.contains(id));
        match &kind {
            ChangeKind::Park => self.tally.parked += hits().count() as u64,
            ChangeKind::Fail { error } => {
                *self.tally.failed.entry(cause).or_default() += hits().count() as u64;
                for (_, event_id) in hits() {
                    let topic = key.topic();
                    tracing::error!(
                        event.id = %event_id, topic, cause,
                        "event {event_id} to topic {topic} is set aside as FAILED: {error}; mend the cause, then call outbox_redrive()"
                    );
                }
            }
            ChangeKind::Retry { .. } => {}
        }
        let later = self.op + 1;
        let has_failed = matches!(kind, ChangeKind::Fail { .. }) && hits().next().is_some();
        let is_halted = has_failed && self.config.halt_topics.is_on(key.topic());
        let keeps_parked = self.rules.hold(Rule::RingUntilReadAfterPark);
        let Some(tenancy) = self.tenancy(bucket, epoch) else {
            return;
        };
        let blocked = tenancy.blocked.entry(key).or_default();
        blocked.changed_op = later;
        if is_halted {
            let failed = rows[0].0;
            blocked.halted_at = Some(blocked.halted_at.map_or(failed, |at| at.min(failed)));
            blocked.halted_op = later;
        }
        for (id, _) in &rows {
            if is_side {
                let Some(item) = blocked.side.get_mut(id) else { continue };
                match &kind {
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

    /// Changes whose outcome is not known, or that were refused: repeated until it is known.
    pub fn change_refused(&mut self, op: Op, now: Duration) {
        if let Some(changing) = self.changing.take_if(|changing| changing.op == op) {
            self.next_change = now + self.config.poll_max;
            self.change_unknown(changing);
        }
    }

    pub(super) fn change_unknown(&mut self, changing: Changing) {
        if self.rules.hold(Rule::RepeatUnknown) {
            self.changes.put_back(changing.changes);
            return;
        }
        for change in changing.changes {
            let Some(tenancy) = self.tenancy(change.bucket, change.epoch) else {
                continue;
            };
            for (id, _) in &change.rows {
                if change.is_side {
                    if let Some(blocked) = tenancy.blocked.get_mut(&change.key) {
                        blocked.side.remove(id);
                    }
                } else {
                    tenancy.remove(*id);
                }
            }
        }
    }
}
