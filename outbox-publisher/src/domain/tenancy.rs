//! One owner's hold of a bucket: the rows in hand, the cursor, the side lane.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::event::{LaneKey, OutboxEvent};
use super::topic::Lane;

/// Where a row in hand stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Read, not sent.
    Queued,
    /// In the hands of a producer.
    Sent {
        /// Which producer.
        lane: Lane,
        /// Which life of it.
        generation: u64,
        /// Whether nothing else of its partition was in that producer's hands: a refusal is then its own.
        is_alone: bool,
    },
    /// On its topic, not yet marked.
    Acked,
    /// A settle is under way.
    Settling,
    /// Marked PUBLISHED; leaves with a read or look that began at this operation or later.
    Settled(u64),
    /// A retry, park or fail is under way.
    Changing,
    /// Out of the main lane; leaves likewise.
    Parked(u64),
}

impl Progress {
    /// Whether the row no longer waits in this lane.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Settled(_) | Self::Parked(_))
    }
}

/// A row in hand.
#[derive(Debug, Clone)]
pub struct Item {
    /// The row.
    pub event: Arc<OutboxEvent>,
    /// Its topic, by number.
    pub topic: usize,
    /// Where it stands.
    pub progress: Progress,
    /// Not to be sent before.
    pub due: Duration,
    /// Failures so far that were its own.
    pub attempts: u32,
}

impl Item {
    /// A row as read.
    pub fn new(event: OutboxEvent, topic: usize, due: Duration) -> Self {
        let attempts = event.attempts;
        Self {
            event: Arc::new(event),
            topic,
            progress: Progress::Queued,
            due,
            attempts,
        }
    }

    /// Whether a row read again is this one: after a crash of the server an id may come back.
    pub fn is(&self, event: &OutboxEvent) -> bool {
        self.event.event_id == event.event_id
    }
}

/// A (topic, key) with rows in the side lane, or with a FAILED head that halts it.
#[derive(Debug, Default)]
pub struct Blocked {
    /// Rows of the side lane, as far as they are in memory.
    pub side: BTreeMap<i64, Item>,
    /// When the last look that covered the key began.
    pub looked_op: u64,
    /// Looks begun before this operation do not count.
    pub changed_op: u64,
    /// The lowest FAILED id under `halt`: only rows below it flow.
    pub halted_at: Option<i64>,
    /// Looks begun before this operation do not end the halt.
    pub halted_op: u64,
    /// The last thing heard of its side rows is good: new followers may wait in memory for a moment.
    pub is_recovering: bool,
}

impl Blocked {
    /// Whether a follower may wait in memory for the key to be freed, instead of being parked: not if a
    /// side row of higher id waits for it in turn, as one does that was put back from the archive.
    pub fn may_wait(&self, id: i64) -> bool {
        self.is_recovering && self.halted_at.is_none() && self.side.last_key_value().is_none_or(|(last, _)| *last < id)
    }
}

/// One owner's hold of a bucket, from take-over to loss.
#[derive(Debug)]
pub struct Tenancy {
    /// The bucket.
    pub bucket: i16,
    /// The fencing token of this hold.
    pub epoch: i64,
    /// Everything of lane 0 at or below it is terminal; as stored.
    pub low: i64,
    /// The last id handed out.
    pub cursor: i64,
    /// No read has returned yet.
    pub is_first_read: bool,
    /// The last read hit its limit in this bucket.
    pub is_limited: bool,
    /// The rows of lane 0 in hand, by id.
    pub ring: BTreeMap<i64, Item>,
    /// Those of them that wait to be sent.
    pub queued: BTreeSet<i64>,
    /// Bytes in the ring.
    pub ring_bytes: usize,
    /// Blocked keys.
    pub blocked: BTreeMap<LaneKey, Blocked>,
    /// A whole look has returned.
    pub is_looked: bool,
    /// When the last counted look began.
    pub looked_op: u64,
    /// Nothing new is taken; it is released when nothing is in flight.
    pub is_draining: bool,
    /// Something may be sent that could not be before.
    pub is_dirty: bool,
}

impl Tenancy {
    /// A hold that has just begun, at the stored low id.
    pub fn new(bucket: i16, epoch: i64, low: i64) -> Self {
        Self {
            bucket,
            epoch,
            low,
            cursor: low,
            is_first_read: true,
            is_limited: false,
            ring: BTreeMap::new(),
            queued: BTreeSet::new(),
            ring_bytes: 0,
            blocked: BTreeMap::new(),
            is_looked: false,
            looked_op: 0,
            is_draining: false,
            is_dirty: false,
        }
    }

    /// Takes a row of lane 0 in hand.
    pub fn insert(&mut self, item: Item) {
        let id = item.event.id;
        self.ring_bytes += item.event.size_bytes();
        if let Some(old) = self.ring.insert(id, item) {
            self.ring_bytes -= old.event.size_bytes();
        }
        self.queued.insert(id);
        self.is_dirty = true;
    }

    /// Lets a row of lane 0 go.
    pub fn remove(&mut self, id: i64) {
        if let Some(item) = self.ring.remove(&id) {
            self.ring_bytes -= item.event.size_bytes();
            self.queued.remove(&id);
        }
    }

    /// Lets go what a read begun at `op` can no longer return.
    pub fn forget_over(&mut self, op: u64) {
        let mut freed = 0;
        self.ring.retain(|_, item| match item.progress {
            Progress::Settled(since) | Progress::Parked(since) if since <= op => {
                freed += item.event.size_bytes();
                false
            }
            _ => true,
        });
        self.ring_bytes -= freed;
    }

    /// Changes where a row of lane 0 stands.
    pub fn set(&mut self, id: i64, progress: Progress) {
        if let Some(item) = self.ring.get_mut(&id) {
            item.progress = progress;
            if progress == Progress::Queued {
                self.queued.insert(id);
                self.is_dirty = true;
            } else {
                self.queued.remove(&id);
            }
        }
    }

    /// A row of lane 0 is on its topic: what was kept to be sent again goes, its id waits to be marked.
    pub fn acknowledge(&mut self, id: i64) {
        self.set(id, Progress::Acked);
        // A producer that still held it would let it go in a moment.
        if let Some(event) = self.ring.get_mut(&id).and_then(|item| Arc::get_mut(&mut item.event)) {
            self.ring_bytes -= event.let_go();
        }
    }

    /// The blocked key of a row, if it is blocked.
    pub fn block_of(&self, event: &OutboxEvent) -> Option<&Blocked> {
        if self.blocked.is_empty() {
            return None;
        }
        self.blocked.get(&LaneKey::of(event))
    }

    /// The row in hand that a reference names, if it is still the same row.
    pub fn find(&mut self, id: i64, event_id: Uuid, side: Option<&LaneKey>) -> Option<&mut Item> {
        let item = match side {
            None => self.ring.get_mut(&id),
            Some(key) => self.blocked.get_mut(key).and_then(|blocked| blocked.side.get_mut(&id)),
        };
        item.filter(|item| item.event.event_id == event_id)
    }

    /// The low id that may be stored: below every row of lane 0 that is not over, and `settled_below`.
    pub fn low_id(&self, settled_below: Option<i64>) -> i64 {
        let (false, Some(settled_below)) = (self.is_first_read, settled_below) else {
            return self.low;
        };
        let mut low = settled_below;
        if let Some((id, _)) = self.ring.iter().find(|(_, item)| !item.progress.is_over()) {
            low = low.min(id - 1);
        }
        if self.is_limited {
            low = low.min(self.cursor);
        }
        low.max(self.low)
    }

    /// Whether rows of a topic wait here, in memory or behind a blocked key.
    pub fn waits_for(&self, topic: &str) -> bool {
        let is_waiting = |item: &Item| !item.progress.is_over() && item.event.topic == topic;
        self.blocked.keys().any(|key| key.topic() == topic) || self.ring.values().any(is_waiting)
    }

    /// Whether any row is between sending and being marked.
    pub fn is_busy(&self) -> bool {
        let side = self.blocked.values().flat_map(|blocked| blocked.side.values());
        self.ring.values().chain(side).any(|item| {
            matches!(
                item.progress,
                Progress::Sent { .. } | Progress::Acked | Progress::Settling | Progress::Changing
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: i64) -> OutboxEvent {
        OutboxEvent {
            id,
            bucket: 0,
            lane_hash: 0,
            event_id: Uuid::from_u128(id as u128),
            attempts: 0,
            topic: "t".into(),
            key: None,
            event_type: "x".into(),
            content_type: "y".into(),
            payload: None,
            headers: None,
            traceparent: None,
            tracestate: None,
        }
    }

    #[test]
    fn low_id_stays_below_what_is_not_over() {
        let mut tenancy = Tenancy::new(0, 1, 10);
        assert_eq!(tenancy.low_id(Some(90)), 10, "before the first read it does not move");
        tenancy.is_first_read = false;
        tenancy.insert(Item::new(event(50), 0, Duration::ZERO));
        assert_eq!(tenancy.low_id(Some(90)), 49);
        tenancy.set(50, Progress::Settled(3));
        assert_eq!(tenancy.low_id(Some(90)), 90);
        tenancy.is_limited = true;
        tenancy.cursor = 60;
        assert_eq!(tenancy.low_id(Some(90)), 60);
        assert_eq!(tenancy.low_id(Some(5)), 10, "a stored bound is never taken back");
    }

    #[test]
    fn an_acknowledged_row_keeps_its_place_and_not_its_bytes() {
        let mut tenancy = Tenancy::new(0, 1, 0);
        let row = OutboxEvent {
            payload: Some(vec![b'x'; 300]),
            ..event(5)
        };
        tenancy.insert(Item::new(row.clone(), 0, Duration::ZERO));
        tenancy.acknowledge(5);
        assert_eq!(tenancy.ring_bytes, row.size_bytes() - 300);
        assert!(tenancy.ring[&5].is(&row));
        tenancy.set(5, Progress::Settled(1));
        tenancy.forget_over(1);
        assert_eq!(tenancy.ring_bytes, 0);
    }

    #[test]
    fn a_row_leaves_only_with_a_read_begun_after_its_settle() {
        let mut tenancy = Tenancy::new(0, 1, 0);
        tenancy.insert(Item::new(event(5), 0, Duration::ZERO));
        tenancy.set(5, Progress::Settled(3));
        tenancy.forget_over(2);
        assert_eq!(tenancy.ring.len(), 1);
        tenancy.forget_over(3);
        assert!(tenancy.ring.is_empty());
        assert_eq!(tenancy.ring_bytes, 0);
    }
}
