//! Which rows go to which producer, and what a delivery report means.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::flights::Flight;
use super::settling::Acked;
use super::{Command, Relay};
use crate::domain::event::LaneKey;
use crate::domain::rules::Rule;
use crate::domain::tenancy::{Item, Progress};
use crate::domain::topic::{Lane, TopicFacts, TopicFault};
use crate::ports::SendError;
use shared::hash;

/// What keeps a row from being sent now.
enum Hold {
    /// Something of its own lane: others may go.
    Row,
    /// The producers' hands are full.
    Full,
}

impl Relay {
    pub(super) fn ask_topics(&mut self, now: Duration, commands: &mut Vec<Command>) {
        for number in 0..self.topics.len() {
            if self.topics[number].ask(now, &self.config.topics) {
                commands.push(Command::AskTopic(number, self.topics[number].name.clone()));
            }
        }
    }

    /// What the broker said of a topic, or why it could not.
    pub fn topic_known(&mut self, number: usize, facts: Result<TopicFacts, TopicFault>, now: Duration) {
        let jitter = self.jitter();
        let Some(topic) = self.topics.get_mut(number) else {
            return;
        };
        match facts {
            Ok(facts) => topic.learn(facts, now, &self.config.topics, jitter),
            Err(fault) => topic.unknown(&fault, now, &self.config.topics, jitter),
        }
        self.dirty_all();
    }

    /// Whether rows may be handed out at all: the lease lasts by our own clock.
    fn may_produce(&self, now: Duration) -> bool {
        now < self.lease_until
    }

    pub(super) fn send(&mut self, now: Duration, commands: &mut Vec<Command>) {
        if !self.may_produce(now) {
            return;
        }
        // One row at a time goes to a partition of a topic under suspicion, all buckets together. Were the
        // suspects not the first of them, a stream of new rows would keep them waiting, and the topic slow.
        let suspected = self.send_side_suspects(now, commands);
        let dirty = self.tenancies.values().filter(|t| t.is_dirty).map(|t| t.bucket);
        let (first, others): (Vec<_>, Vec<_>) = dirty.partition(|bucket| suspected.contains(bucket));
        for bucket in first.into_iter().chain(others) {
            if !self.send_bucket(bucket, now, commands) {
                return; // full: the others stay dirty, and each report lets us in again
            }
        }
    }

    /// Sends suspects that wait in the side lane; in which buckets there are any suspects.
    fn send_side_suspects(&mut self, now: Duration, commands: &mut Vec<Command>) -> BTreeSet<i16> {
        let suspects: Vec<(i16, i64)> = self
            .topics
            .iter()
            .filter(|topic| topic.is_suspect)
            .flat_map(|topic| topic.suspects.iter().copied())
            .collect();
        for (bucket, id) in &suspects {
            let key = self
                .tenancies
                .get(bucket)
                .and_then(|tenancy| tenancy.side_key(*id).cloned());
            if let Some(key) = key {
                self.send_side_of(*bucket, &key, now, commands);
            }
        }
        suspects.into_iter().map(|(bucket, _)| bucket).collect()
    }

    /// Sends what may be sent of a bucket. False if the producers' hands are full.
    fn send_bucket(&mut self, bucket: i16, now: Duration, commands: &mut Vec<Command>) -> bool {
        let looks_first = self.rules.hold(Rule::LookBeforeProducing);
        let Some(tenancy) = self.tenancies.get_mut(&bucket) else {
            return true;
        };
        if tenancy.is_draining || (looks_first && !tenancy.is_looked) {
            return true;
        }
        tenancy.is_dirty = false;
        let queued: Vec<i64> = tenancy.queued.iter().copied().collect();
        // What held a row may end on the way: a row that fails can be the last suspect of its topic. The key's next
        // rows wait for it all the same.
        let mut held = BTreeSet::new();
        for id in queued {
            let Some(tenancy) = self.tenancies.get(&bucket) else {
                return true;
            };
            let Some(item) = tenancy.ring.get(&id) else { continue };
            if tenancy.block_of(&item.event).is_some() || held.contains(&item.event.lane_hash) {
                continue;
            }
            let item = item.clone();
            match self.try_send(bucket, &item, None, now, commands) {
                Ok(()) => {}
                Err(Hold::Row) => drop(held.insert(item.event.lane_hash)),
                Err(Hold::Full) => {
                    if let Some(tenancy) = self.tenancies.get_mut(&bucket) {
                        tenancy.is_dirty = true;
                    }
                    return false;
                }
            }
        }
        true
    }

    /// Hands a side row to the probe. True if it was sent.
    pub(super) fn try_send_side(
        &mut self,
        bucket: i16,
        item: &Item,
        key: &LaneKey,
        now: Duration,
        commands: &mut Vec<Command>,
    ) -> bool {
        self.may_produce(now) && self.try_send(bucket, item, Some(key), now, commands).is_ok()
    }

    fn try_send(
        &mut self,
        bucket: i16,
        item: &Item,
        side: Option<&LaneKey>,
        now: Duration,
        commands: &mut Vec<Command>,
    ) -> Result<(), Hold> {
        if self.flights.len() >= self.config.in_flight_max {
            return Err(Hold::Full);
        }
        if let Err(fault) = item.event.check() {
            self.unsendable(bucket, item, side, &fault, now);
            return Err(Hold::Row);
        }
        let topic = &self.topics[item.topic];
        let lane = if side.is_some() || topic.is_suspect {
            Lane::Probe
        } else {
            Lane::Main
        };
        if !topic.is_ready(now) || !self.producers[lane as usize].is_ready {
            return Err(Hold::Row);
        }
        let facts = topic.facts.expect("a topic that is ready is known");
        if let Some(limit) = facts.record_bytes_max
            && let Err(fault) = item.event.check_size(limit)
        {
            self.unsendable(bucket, item, side, &fault, now);
            return Err(Hold::Row);
        }
        let is_suspect = topic.is_suspect;
        let others = topic.in_flight(lane.other());
        if others > 0 && self.rules.hold(Rule::KeyStays) && self.key_is_with(bucket, item, lane.other()) {
            return Err(Hold::Row);
        }
        let event = &item.event;
        let partition = hash::partition_of(event.key.as_deref(), event.event_id, facts.partitions);
        let window = self.topics[item.topic].window(lane, partition, now, &self.config.topics);
        let allowed = match lane {
            // Whole batches are refused: where the limit is near a batch's size, a row is its own batch.
            _ if facts.takes_less_than(self.config.batch_bytes) => 1,
            Lane::Main if window.is_open || !self.rules.hold(Rule::FirstAlone) => usize::MAX,
            Lane::Probe if window.is_open && !is_suspect => SIDE_WINDOW,
            Lane::Main | Lane::Probe => 1,
        };
        if window.in_flight >= allowed {
            return Err(Hold::Row);
        }
        let is_alone = lane == Lane::Probe && is_suspect && window.in_flight == 0;
        window.in_flight += 1;
        let generation = self.producers[lane as usize].generation;
        let Some(tenancy) = self.tenancies.get_mut(&bucket) else {
            return Err(Hold::Row);
        };
        let epoch = tenancy.epoch;
        let progress = Progress::Sent {
            lane,
            generation,
            is_alone,
        };
        match side {
            None => tenancy.set(event.id, progress),
            Some(_) => {
                if let Some(held) = tenancy.find(event.id, event.event_id, side) {
                    held.progress = progress;
                }
            }
        }
        let token = self.flights.insert(Flight {
            lane,
            generation,
            bucket,
            epoch,
            id: event.id,
            event_id: event.event_id,
            topic: item.topic,
            partition,
            side: side.cloned(),
            is_alone,
        });
        commands.push(Command::Send {
            lane,
            generation,
            token,
            partition,
            epoch,
            event: Arc::clone(event),
        });
        Ok(())
    }

    /// Whether a row of the same topic and key is in the hands of that producer, under this tenancy.
    fn key_is_with(&self, bucket: i16, item: &Item, lane: Lane) -> bool {
        let Some(tenancy) = self.tenancies.get(&bucket) else {
            return false;
        };
        let key = LaneKey::of(&item.event);
        let is_there = |other: &Item| {
            matches!(other.progress, Progress::Sent { lane: l, .. } if l == lane) && key.is_of(&other.event)
        };
        tenancy.ring.values().any(is_there)
            || tenancy
                .blocked
                .get(&key)
                .is_some_and(|blocked| blocked.side.values().any(is_there))
    }

    /// A delivery report.
    pub fn reported(
        &mut self,
        lane: Lane,
        generation: u64,
        token: usize,
        result: Result<(), SendError>,
        now: Duration,
        commands: &mut Vec<Command>,
    ) {
        let Some(flight) = self.flights.take(token, lane, generation) else {
            return;
        };
        match result {
            Ok(()) => self.acknowledged(flight, now),
            Err(error) => self.refused_by_broker(flight, error, now, commands),
        }
    }

    fn acknowledged(&mut self, flight: Flight, now: Duration) {
        let topic = &mut self.topics[flight.topic];
        let was_troubled = topic.trouble().is_some();
        let has_opened = topic.acknowledged(flight.lane, flight.partition, now);
        let goes_alone = topic
            .facts
            .is_some_and(|facts| facts.takes_less_than(self.config.batch_bytes));
        if flight.lane == Lane::Probe {
            topic.suspects.remove(&(flight.bucket, flight.id));
            topic.is_suspect = topic.is_suspect && !topic.suspects.is_empty();
        }
        if has_opened || goes_alone || was_troubled || flight.lane == Lane::Probe {
            self.dirty_all();
        }
        self.tally.published += 1;
        let Flight {
            bucket,
            epoch,
            id,
            event_id,
            side,
            ..
        } = flight;
        if let Some(tenancy) = self.tenancy(bucket, epoch) {
            match &side {
                None => tenancy.acknowledge(id),
                Some(key) => {
                    if let Some(blocked) = tenancy.blocked.get_mut(key) {
                        blocked.is_recovering = true;
                        if let Some(item) = blocked.side.get_mut(&id).filter(|i| i.event.event_id == event_id) {
                            item.progress = Progress::Acked;
                        }
                    }
                }
            }
        }
        if side.is_some() {
            self.side_has_room(now);
        }
        if self.acked.is_empty() {
            self.acked_since = now;
        }
        self.acked.push(Acked {
            bucket,
            epoch,
            id,
            event_id,
            side,
        });
    }

    fn refused_by_broker(&mut self, flight: Flight, error: SendError, now: Duration, commands: &mut Vec<Command>) {
        self.topics[flight.topic].returned(flight.lane, flight.partition);
        let jitter = self.jitter();
        // A row of a bucket that is gone could never be cleared: it is the next owner's to suspect.
        let is_held = self.tenancy(flight.bucket, flight.epoch).is_some();
        let topic = &mut self.topics[flight.topic];
        let place = (flight.bucket, flight.id);
        let reason = match error {
            SendError::Unknown => {
                self.requeue(&flight);
                return; // the cause, and the rebuild, come with another report
            }
            SendError::NotSent(reason) => {
                self.row_failed(&flight, &reason, now);
                return; // it never entered the stream: no gap, no rebuild
            }
            SendError::Destination(reason) => {
                topic.is_suspect = true;
                topic.suspects.extend(is_held.then_some(place));
                topic.pause(reason.clone(), now, &self.config.topics, jitter);
                self.requeue(&flight);
                reason
            }
            SendError::Row(reason) if flight.is_alone => {
                topic.suspects.remove(&place);
                topic.is_suspect = !topic.suspects.is_empty();
                self.row_failed(&flight, &reason, now);
                reason
            }
            SendError::Row(reason) => {
                // Errors hit batches, not rows: each is sent alone before an attempt counts. And the
                // topic's limit is read again: if it was lowered, no row is at fault.
                topic.is_suspect = true;
                topic.suspects.extend(is_held.then_some(place));
                topic.doubt();
                self.requeue(&flight);
                reason
            }
        };
        self.rebuild(flight.lane, flight.generation, &reason, commands);
    }

    /// A producer cannot go on without a gap: it reports what it holds and is replaced.
    pub fn producer_failed(&mut self, lane: Lane, generation: u64, reason: &str, commands: &mut Vec<Command>) {
        self.rebuild(lane, generation, reason, commands);
    }

    fn rebuild(&mut self, lane: Lane, generation: u64, reason: &str, commands: &mut Vec<Command>) {
        let producer = &mut self.producers[lane as usize];
        if !producer.is_ready || producer.generation != generation {
            return;
        }
        producer.is_ready = false;
        self.tally.rebuilds += 1;
        tracing::warn!(?lane, generation, "producer is rebuilt: {reason}");
        commands.push(Command::Rebuild(lane, generation));
    }

    /// A producer of this life stands ready; every report of the ones before it has been given.
    pub fn producer_rebuilt(&mut self, lane: Lane, generation: u64) {
        for flight in self.flights.take_before(lane, generation) {
            self.requeue(&flight);
        }
        for topic in &mut self.topics {
            topic.close_windows(lane);
        }
        self.producers[lane as usize] = super::Producer {
            generation,
            is_ready: true,
        };
        self.dirty_all();
    }

    /// Not known to be on its topic: sent again by its place in the order.
    fn requeue(&mut self, flight: &Flight) {
        let Flight {
            bucket,
            epoch,
            id,
            event_id,
            ref side,
            ..
        } = *flight;
        let Some(tenancy) = self.tenancy(bucket, epoch) else {
            return;
        };
        tenancy.is_dirty = true;
        match side {
            None => tenancy.set(id, Progress::Queued),
            Some(_) => {
                if let Some(item) = tenancy.find(id, event_id, side.as_ref()) {
                    item.progress = Progress::Queued;
                }
            }
        }
    }
}

/// Side rows of one partition in the probe's hands at most: a bad one among them costs a rebuild.
const SIDE_WINDOW: usize = 64;
