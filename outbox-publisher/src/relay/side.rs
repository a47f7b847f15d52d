//! Blocked keys: looks, parking, sending side rows in order.
//!
//! Blocked is a (topic, key). All its followers are parked in the side lane; memory is only a cache of
//! them. Order is by id over both lanes.

use std::collections::BTreeSet;
use std::time::Duration;

use super::changing::Change;
use super::{Command, Looking, Op, Relay};
use crate::domain::event::LaneKey;
use crate::domain::rules::Rule;
use crate::domain::tenancy::{Blocked, Item, Progress, Tenancy};
use crate::domain::topic::Lane;
use crate::ports::{ChangeKind, LookAnswer, LookBucket, LookRequest};

/// So many side rows are divided among the blocked keys.
const LOOK_ROWS_SHARED: usize = 4_096;
/// At least so long between two looks, however much is wanted.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Side rows are tried so often when nothing else calls for it.
const SIDE_PAUSE: Duration = Duration::from_millis(20);
/// And so soon after one of them was acknowledged: a try goes through all blocked keys.
const SIDE_PAUSE_ACKED: Duration = Duration::from_millis(2);

impl Relay {
    pub(super) fn look(&mut self, now: Duration, commands: &mut Vec<Command>) {
        if self.looking.is_some() || now < self.next_look || self.tenancies.is_empty() {
            return;
        }
        let buckets = self.tenancies.values().map(|tenancy| LookBucket {
            bucket: tenancy.bucket,
            epoch: tenancy.epoch,
            after: self.look_after.get(&tenancy.bucket).copied(),
        });
        let request = LookRequest {
            buckets: buckets.collect(),
            rows_per_lane: self.look_rows(),
            lanes_max: self.config.look_lanes_max,
            halt: self.config.halt_topics.clone(),
        };
        let op = self.next_op();
        self.looking = Some(Looking {
            op,
            request: request.clone(),
        });
        self.next_look = now + self.config.look_interval;
        commands.push(Command::Look(op, request));
    }

    /// Rows that a look asks for of each key: more where few keys are blocked, since one look, its records and their
    /// settle are all that a key gets on in a cycle.
    fn look_rows(&self) -> usize {
        let most = self.config.look_rows_max;
        (LOOK_ROWS_SHARED / self.keys_blocked().max(1)).clamp(most.div_ceil(4), most)
    }

    /// A look has returned.
    pub fn look_done(&mut self, op: Op, mut answer: LookAnswer, now: Duration) {
        if self.looking.as_ref().is_none_or(|looking| looking.op != op) {
            return;
        }
        let Looking { request, .. } = self.looking.take().expect("just seen");
        if answer.life != self.life && self.rules.hold(Rule::NoticeRecovery) {
            self.store_lost(now);
            return;
        }
        // Something asked for a look while this one was under way, or pages are left: soon again.
        self.next_look = self
            .next_look
            .min((now + self.config.look_interval).max(now + LOOK_PAUSE));
        for asked in &request.buckets {
            if !answer.owned.contains(&asked.bucket) {
                self.lose(asked.bucket, asked.epoch);
                continue;
            }
            self.take_look(op, asked, &mut answer, now);
        }
    }

    fn take_look(&mut self, op: Op, asked: &LookBucket, answer: &mut LookAnswer, now: Duration) {
        let LookBucket { bucket, epoch, after } = *asked;
        let upto = answer.upto.get(&bucket).copied();
        let covers = |hash: i32| after.is_none_or(|after| hash > after) && upto.is_none_or(|upto| hash <= upto);
        let sideways = self.rules.hold(Rule::SideUntilLook);
        let halts_are_read = self.rules.hold(Rule::HaltsAreRead);
        let rows: Vec<_> = answer.rows.extract_if(.., |row| row.event.bucket == bucket).collect();
        let halted: Vec<_> = answer.halted.extract_if(.., |head| head.bucket == bucket).collect();
        let cut: BTreeSet<i32> = answer
            .cut
            .iter()
            .filter(|(b, _)| *b == bucket)
            .map(|(_, hash)| *hash)
            .collect();
        let topics: Vec<usize> = rows.iter().map(|row| self.topic_number(&row.event.topic)).collect();
        let Some(tenancy) = self.tenancies.get_mut(&bucket).filter(|t| t.epoch == epoch) else {
            return;
        };

        let seen: BTreeSet<i64> = rows.iter().map(|row| row.event.id).collect();
        for (key, blocked) in &mut tenancy.blocked {
            let hash = key.hash();
            if !covers(hash) {
                continue;
            }
            blocked.looked_op = op;
            // Also what lies above the cut of a look goes: a row below it may have been put back meanwhile.
            blocked.side.retain(|id, item| match item.progress {
                Progress::Settled(since) => since > op,
                Progress::Queued => seen.contains(id),
                _ => true,
            });
        }
        let mut with_rows: BTreeSet<LaneKey> = BTreeSet::new();
        for (row, topic) in rows.into_iter().zip(topics) {
            let (id, due) = (row.event.id, now + row.due_in);
            if sideways && let Some(main) = tenancy.ring.get(&id).filter(|main| main.is(&row.event)) {
                match main.progress {
                    Progress::Parked(_) | Progress::Changing => {}
                    Progress::Settled(since) if since <= op => {}
                    Progress::Queued => tenancy.remove(id),
                    _ => continue, // its acknowledgement or settle is under way: it will be over
                }
            }
            let key = LaneKey::of(&row.event);
            let blocked = tenancy.blocked.entry(key.clone()).or_insert_with(|| Blocked {
                looked_op: op,
                ..Blocked::default()
            });
            with_rows.insert(key);
            match blocked.side.get_mut(&id) {
                Some(known) if known.progress == Progress::Queued && known.is(&row.event) => {
                    known.attempts = row.event.attempts;
                    known.due = known.due.min(due);
                }
                Some(known) if known.is(&row.event) => {}
                _ => {
                    blocked.side.insert(id, Item::new(row.event, topic, due));
                }
            }
        }
        let mut halted_now: BTreeSet<LaneKey> = BTreeSet::new();
        for head in halted {
            let key = LaneKey::new(&head.topic, head.key.as_deref(), head.event_id);
            let blocked = tenancy.blocked.entry(key.clone()).or_insert_with(|| Blocked {
                looked_op: op,
                ..Blocked::default()
            });
            let is_first = halted_now.insert(key);
            blocked.halted_at = match blocked.halted_at {
                Some(at) if !is_first => Some(at.min(head.id)),
                _ => Some(head.id),
            };
        }
        match upto {
            Some(upto) => {
                self.look_after.insert(bucket, upto);
                self.next_look = self.next_look.min(now + LOOK_PAUSE);
            }
            None => {
                self.look_after.remove(&bucket);
                tenancy.is_looked = true;
                tenancy.looked_op = op;
            }
        }
        tenancy.is_dirty = true;
        // Which keys this look frees.
        let candidates: Vec<LaneKey> = tenancy
            .blocked
            .keys()
            .filter(|key| covers(key.hash()))
            .cloned()
            .collect();
        for key in candidates {
            let has_rows = with_rows.contains(&key) || cut.contains(&key.hash());
            self.free_if_clear(
                bucket,
                epoch,
                &key,
                op,
                has_rows,
                halted_now.contains(&key),
                halts_are_read,
            );
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what one look says of one key, used once")]
    fn free_if_clear(
        &mut self,
        bucket: i16,
        epoch: i64,
        key: &LaneKey,
        op: Op,
        has_rows: bool,
        is_halted: bool,
        halts_are_read: bool,
    ) {
        let has_change = self.has_change(bucket, epoch, key, |_| true);
        let counts_later = self.rules.hold(Rule::LookAfterPark);
        let Some(tenancy) = self.tenancies.get_mut(&bucket) else {
            return;
        };
        let Some(blocked) = tenancy.blocked.get_mut(key) else {
            return;
        };
        if !is_halted && blocked.halted_at.is_some() && blocked.halted_op <= op && halts_are_read {
            blocked.halted_at = None;
        }
        let is_stale = counts_later && blocked.changed_op > op;
        let has_side = blocked
            .side
            .values()
            .any(|item| !matches!(item.progress, Progress::Settled(_)));
        if blocked.halted_at.is_some() || has_rows || has_change || is_stale || has_side {
            return;
        }
        let is_changing = |item: &Item| item.progress == Progress::Changing && key.is_of(&item.event);
        if tenancy.ring.values().any(is_changing) {
            return;
        }
        tenancy.blocked.remove(key);
        tenancy.is_dirty = true;
    }

    /// A side row was acknowledged: its window has room for the next one.
    pub(super) fn side_has_room(&mut self, now: Duration) {
        self.next_side = self.next_side.min(now + SIDE_PAUSE_ACKED);
    }

    pub(super) fn send_side(&mut self, now: Duration, commands: &mut Vec<Command>) {
        if now < self.next_side {
            return;
        }
        let buckets: Vec<i16> = self
            .tenancies
            .values()
            .filter(|t| !t.blocked.is_empty())
            .map(|t| t.bucket)
            .collect();
        if buckets.is_empty() {
            return;
        }
        self.next_side = now + SIDE_PAUSE;
        for bucket in buckets {
            let keys: Vec<LaneKey> = self.tenancies[&bucket].blocked.keys().cloned().collect();
            for key in keys {
                self.send_side_of(bucket, &key, now, commands);
            }
        }
    }

    /// Sends the side rows of one key that may be sent now.
    pub(super) fn send_side_of(&mut self, bucket: i16, key: &LaneKey, now: Duration, commands: &mut Vec<Command>) {
        let may_send = |tenancy: &Tenancy| tenancy.is_looked && !tenancy.is_draining;
        if !self.tenancies.get(&bucket).is_some_and(may_send) {
            return;
        }
        while let Some(item) = self.side_head(bucket, key, now) {
            if !self.try_send_side(bucket, &item, key, now, commands) {
                return;
            }
        }
    }

    /// The next side row of a key that may be sent now.
    fn side_head(&self, bucket: i16, key: &LaneKey, now: Duration) -> Option<Item> {
        let rules = &self.rules;
        let tenancy = self.tenancies.get(&bucket)?;
        let blocked = tenancy.blocked.get(key)?;
        if blocked.side.is_empty() || (rules.hold(Rule::SideAfterLook) && blocked.changed_op > blocked.looked_op) {
            return None;
        }
        let (id, item) = first_queued(blocked)?;
        if item.due > now || blocked.halted_at.is_some_and(|halted| id > halted) {
            return None;
        }
        let in_order = rules.hold(Rule::SideInOrder);
        let mut below = tenancy
            .ring
            .range(..id)
            .map(|(_, item)| item)
            .filter(|item| key.is_of(&item.event));
        if below.any(|item| match item.progress {
            Progress::Queued => rules.hold(Rule::ParkAll),
            Progress::Changing => in_order,
            Progress::Sent { lane, .. } => lane == Lane::Main && rules.hold(Rule::KeyStays),
            Progress::Acked | Progress::Settling | Progress::Settled(_) | Progress::Parked(_) => false,
        }) {
            return None;
        }
        if in_order && self.has_change(bucket, tenancy.epoch, key, |changing| changing < id) {
            return None;
        }
        let is_behind = tenancy.is_first_read || (tenancy.is_limited && tenancy.cursor < id);
        if is_behind && rules.hold(Rule::SideBehindCursor) {
            return None;
        }
        Some(item.clone())
    }

    /// Moves the queued followers of blocked keys to the side lane. So is what waits for a topic that
    /// takes nothing, before it fills the ring of its bucket or the memory of the instance; unless no broker
    /// answers: then nothing behind it could be sent either, and an outage must not cost an update per row.
    pub(super) fn park(&mut self, now: Duration) {
        let buckets: Vec<i16> = self
            .tenancies
            .values()
            .filter(|t| !t.queued.is_empty() && t.is_looked)
            .map(|t| t.bucket)
            .collect();
        let has_room = self.has_room();
        for bucket in buckets {
            let tenancy = &self.tenancies[&bucket];
            // Also when bytes run out: what waits here would keep the cursor from the rows it waits for.
            let is_crowded = !has_room || tenancy.queued.len() * 4 >= self.config.bucket_rows_max * 3;
            if tenancy.blocked.is_empty() && !is_crowded {
                continue;
            }
            let mut parked: std::collections::BTreeMap<LaneKey, Vec<(i64, uuid::Uuid)>> = Default::default();
            for id in &tenancy.queued {
                let Some(item) = tenancy.ring.get(id) else { continue };
                let waits_for_topic = is_crowded && self.topics[item.topic].is_in_the_way();
                let is_blocked = tenancy
                    .block_of(&item.event)
                    .is_some_and(|b| is_crowded || !b.may_wait(*id));
                if is_blocked || waits_for_topic {
                    parked
                        .entry(LaneKey::of(&item.event))
                        .or_default()
                        .push((*id, item.event.event_id));
                }
            }
            for (key, mut rows) in parked {
                if !self.rules.hold(Rule::ParkAll) {
                    rows.remove(0);
                }
                self.begin_park(bucket, key, rows);
                self.next_change = self.next_change.min(now);
            }
        }
    }

    fn begin_park(&mut self, bucket: i16, key: LaneKey, rows: Vec<(i64, uuid::Uuid)>) {
        let Some(tenancy) = self.tenancies.get_mut(&bucket) else {
            return;
        };
        if rows.is_empty() {
            return;
        }
        for (id, _) in &rows {
            tenancy.set(*id, Progress::Changing);
        }
        tenancy.blocked.entry(key.clone()).or_default();
        let epoch = tenancy.epoch;
        self.clear_suspects(bucket, &key);
        self.changes.push(Change {
            bucket,
            epoch,
            key,
            kind: ChangeKind::Park,
            rows,
            is_side: false,
            cause: "",
        });
    }
}

/// The first row of the side lane that waits, unless one before it is being changed.
fn first_queued(blocked: &Blocked) -> Option<(i64, &Item)> {
    for (id, item) in &blocked.side {
        match item.progress {
            Progress::Queued => return Some((*id, item)),
            Progress::Changing => return None,
            _ => {}
        }
    }
    None
}

impl Tenancy {
    /// The blocked key that a side row belongs to.
    pub(super) fn side_key(&self, id: i64) -> Option<&LaneKey> {
        let mut blocked = self.blocked.iter();
        blocked
            .find(|(_, blocked)| blocked.side.contains_key(&id))
            .map(|(key, _)| key)
    }

    /// Side rows that wait in memory.
    pub fn side_rows(&self) -> usize {
        self.blocked.values().map(|blocked| blocked.side.len()).sum()
    }
}
