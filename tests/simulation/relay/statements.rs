//! The statements of publishers: those that only ask, those that change rows, and the one that moves leases.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use outbox_publisher::domain::marks::Xid;
use outbox_publisher::ports::{
    ChangeAnswer, ChangeKind, ChangeRequest, ChangeRow, ControlAnswer, ControlRequest, HaltedHead, Held, LookAnswer,
    LookRequest, ReadAnswer, ReadRequest, SettleRow, SideRow,
};

use crate::relay::rows::{Phase, Row, Status};
use crate::relay::setup::StoreRule;
use crate::relay::store::Store;

impl Store {
    /// Lane 0: one statement, one snapshot, the epoch compared inside.
    pub(crate) fn read(&self, request: &ReadRequest) -> ReadAnswer {
        let snapshot = self.snapshot();
        let ended = request
            .floors
            .iter()
            .filter(|(xid, _)| snapshot.shows_ended(*xid))
            .map(|(_, floor)| *floor)
            .min();
        let buckets = request.buckets.iter().map(|asked| (asked.bucket, asked.epoch));
        let mut answer = ReadAnswer {
            sample: self.sequence,
            life: self.life,
            owned: self.owned(StoreRule::FencedRead, buckets),
            ..ReadAnswer::default()
        };
        let mut bytes = 0;
        for asked in &request.buckets {
            if !answer.owned.contains(&asked.bucket) {
                continue;
            }
            let bound = asked.bound.min(ended.unwrap_or(i64::MAX)).max(asked.low);
            let is_wanted = |row: &&Row| {
                row.event.bucket == asked.bucket
                    && row.now.lane == 0
                    && row.now.status == Status::Pending
                    && row.event.id > bound
                    && self.is_visible(row)
            };
            let mut found: Vec<&Row> = self.rows.iter().filter(is_wanted).collect();
            found.sort_by_key(|row| row.event.id);
            for row in found.into_iter().take(asked.limit) {
                bytes += row.event.size_bytes();
                if bytes > request.bytes_max && !answer.rows.is_empty() {
                    answer.cut.insert(asked.bucket);
                    break;
                }
                let mut event = row.event.clone();
                event.attempts = row.now.attempts;
                answer.rows.push(event);
            }
        }
        answer.snapshot = snapshot;
        answer
    }

    /// Lane 1, and the FAILED heads that halt their keys.
    pub(crate) fn look(&self, request: &LookRequest, now: Duration) -> LookAnswer {
        let buckets = request.buckets.iter().map(|asked| (asked.bucket, asked.epoch));
        let mut answer = LookAnswer {
            life: self.life,
            owned: self.owned(StoreRule::FencedLook, buckets),
            ..LookAnswer::default()
        };
        for asked in &request.buckets {
            if !answer.owned.contains(&asked.bucket) {
                continue;
            }
            let is_asked = |row: &&Row| {
                row.event.bucket == asked.bucket && asked.after.is_none_or(|after| row.event.lane_hash > after)
            };
            let mut side: Vec<&Row> = self
                .open_rows(Status::Pending)
                .filter(|row| row.now.lane == 1)
                .filter(is_asked)
                .collect();
            let lanes: BTreeSet<i32> = side.iter().map(|row| row.event.lane_hash).collect();
            let last = lanes
                .iter()
                .nth(request.lanes_max - 1)
                .filter(|_| lanes.len() > request.lanes_max);
            if let Some(last) = last {
                answer.upto.insert(asked.bucket, *last);
            }
            let is_covered = |row: &&&Row| last.is_none_or(|last| row.event.lane_hash <= *last);
            side.sort_by_key(|row| row.event.id);
            let mut counts: BTreeMap<i32, usize> = BTreeMap::new();
            for row in side.iter().filter(is_covered) {
                let count = counts.entry(row.event.lane_hash).or_default();
                *count += 1;
                if *count > request.rows_per_lane {
                    answer.cut.insert((asked.bucket, row.event.lane_hash));
                    continue;
                }
                let mut event = row.event.clone();
                event.attempts = row.now.attempts;
                answer.rows.push(SideRow {
                    event,
                    due_in: row.now.due.saturating_sub(now),
                });
            }
            let halts = |row: &&Row| row.event.bucket == asked.bucket && request.halt.is_on(&row.event.topic);
            answer
                .halted
                .extend(self.open_rows(Status::Failed).filter(halts).map(|row| HaltedHead {
                    bucket: row.event.bucket,
                    id: row.event.id,
                    event_id: row.event.event_id,
                    topic: row.event.topic.clone(),
                    key: row.event.key.clone(),
                }));
        }
        answer
    }

    /// Marks rows PUBLISHED. `on_log` says whether an event is on its topic.
    pub(crate) fn settle(&mut self, rows: &[SettleRow], on_log: impl Fn(usize) -> bool) -> u64 {
        let mut changed = 0;
        for named in rows {
            for at in 0..self.rows.len() {
                let row = &self.rows[at];
                let is_named = row.event.bucket == named.bucket
                    && row.event.id == named.id
                    && (row.event.event_id == named.event_id || !self.holds(StoreRule::SettleByEventId));
                if !is_named || !self.is_visible(row) || row.now.status == Status::Published {
                    continue;
                }
                let number = row.number;
                if !on_log(number) {
                    self.fail(format!(
                        "row {} of event {number} marked PUBLISHED, but it is not on its topic",
                        named.id
                    ));
                }
                let to_main = self.holds(StoreRule::SettleToMainLane);
                let state = &mut self.rows[at].now;
                state.status = Status::Published;
                if to_main {
                    state.lane = 0;
                }
                changed += 1;
            }
        }
        if changed > 0 {
            self.complete_own();
        }
        changed
    }

    /// Retry, park or fail.
    pub(crate) fn change(&mut self, request: &ChangeRequest, now: Duration) -> ChangeAnswer {
        let lease = &self.leases[&request.bucket];
        if lease.epoch != request.epoch && self.holds(StoreRule::FenceChange) {
            return ChangeAnswer::NotOwner;
        }
        let mut changed = Vec::new();
        for ChangeRow { id, event_id, kind } in &request.rows {
            for at in 0..self.rows.len() {
                let row = &self.rows[at];
                let is_named = row.event.id == *id && row.event.event_id == *event_id && self.is_visible(row);
                let may_change = row.now.status == Status::Pending || !self.holds(StoreRule::OnlyPending);
                if !is_named || !may_change {
                    continue;
                }
                if row.now.status == Status::Published {
                    self.fail(format!("PUBLISHED row {id} taken back by {kind:?}"));
                }
                let (status, number) = (self.rows[at].now.status, self.rows[at].number);
                let is_counted = !matches!(kind, ChangeKind::Park) && status == Status::Pending;
                if is_counted && !self.events[number].is_at_fault {
                    self.fail(format!("BURNT: row {id} is not at fault and suffers {kind:?}"));
                }
                let row = &mut self.rows[at];
                match kind {
                    ChangeKind::Park => row.now.lane = 1,
                    ChangeKind::Retry { pause, .. } => {
                        row.now.lane = 1;
                        row.now.attempts += 1;
                        row.now.due = now + *pause;
                    }
                    ChangeKind::Fail { .. } => {
                        row.now.lane = 2;
                        row.now.status = Status::Failed;
                        self.events[row.number].has_failed = true;
                    }
                }
                changed.push(*id);
            }
        }
        if !changed.is_empty() {
            self.complete_own();
        }
        ChangeAnswer::Changed(changed)
    }

    /// Which of these transactions hold no lock on the outbox: one that has ended holds none.
    pub(crate) fn without_lock(&self, xids: &[Xid]) -> Vec<Xid> {
        let holds = |xid: &Xid| {
            self.transactions
                .iter()
                .any(|t| t.phase == Phase::Running && t.xid == *xid && t.inserted > 0)
        };
        xids.iter().filter(|xid| !holds(xid)).copied().collect()
    }

    /// Renews, releases, acquires. `is_free` says of a lease that is another's whether it may be taken.
    pub(crate) fn control(
        &mut self,
        owner: u64,
        request: &ControlRequest,
        instances: usize,
        now: Duration,
        mut is_free: impl FnMut(u64, i16, i64) -> bool,
    ) -> ControlAnswer {
        let is_stale = request.life.is_some() && request.life != self.life;
        let life = self.make_life();
        let mut answer = ControlAnswer {
            instances,
            life,
            ..ControlAnswer::default()
        };
        if is_stale && self.holds(StoreRule::RenewInSameLife) {
            return answer; // what its sender knows may be more than what the server kept
        }
        for held in &request.renew {
            let lease = self.leases.get_mut(&held.bucket).expect("a bucket of this store");
            if lease.owner == Some(owner) && lease.epoch == held.epoch {
                lease.low_id = held.low_id;
                lease.until = now + request.lease;
                answer.kept.insert(held.bucket);
            }
        }
        for held in &request.release {
            let lease = self.leases.get_mut(&held.bucket).expect("a bucket of this store");
            if lease.owner == Some(owner) && lease.epoch == held.epoch {
                lease.low_id = held.low_id;
                lease.owner = None;
            }
        }
        for (bucket, lease) in &mut self.leases {
            if answer.acquired.len() >= request.acquire {
                break;
            }
            let may_take = match lease.owner {
                None => true,
                Some(holder) if holder == owner => !answer.kept.contains(bucket),
                Some(holder) => lease.until < now || is_free(holder, *bucket, lease.epoch),
            };
            if may_take {
                lease.owner = Some(owner);
                lease.epoch += 1;
                lease.until = now + request.lease;
                answer.acquired.push(Held {
                    bucket: *bucket,
                    epoch: lease.epoch,
                    low_id: lease.low_id,
                });
            }
        }
        self.complete_own();
        self.flush();
        answer
    }

    /// The buckets of a request whose lease has the epoch that the owner thinks.
    fn owned<'a>(&'a self, rule: StoreRule, buckets: impl Iterator<Item = (i16, i64)> + 'a) -> BTreeSet<i16> {
        let is_fenced = self.holds(rule);
        buckets
            .filter(|(bucket, epoch)| !is_fenced || self.leases[bucket].epoch == *epoch)
            .map(|(bucket, _)| bucket)
            .collect()
    }
}
