//! The judge: knows rows, commit times and what is on the topics, and nothing of how it came about.

use std::collections::{BTreeMap, BTreeSet};

use crate::relay::rows::{Event, Phase, Row, Status};
use crate::relay::setup::Faults;
use crate::relay::store::Store;
use crate::relay::world::World;

impl World {
    /// What is promised and was not kept, when all has come to rest.
    pub(crate) fn verdict(&self) -> Option<String> {
        self.left_over()
            .or_else(|| self.out_of_order())
            .or_else(|| self.lease_left())
    }

    fn left_over(&self) -> Option<String> {
        let store = &self.store;
        let is_committed = |row: &&Row| store.transactions[row.transaction].phase == Phase::Committed;
        for row in store.rows.iter().filter(is_committed).filter(|row| !row.is_dropped) {
            let (id, number, state) = (row.event.id, row.number, row.now);
            if state.status != Status::Published {
                let is_on_log = self.broker.is_on_log(number);
                return Some(format!(
                    "STUCK: row {id} of event {number} is {state:?}, on its topic: {is_on_log}"
                ));
            }
            if state.lane != 0 {
                return Some(format!("LEAF HELD: PUBLISHED row {id} in lane {}", state.lane));
            }
        }
        let lost = store
            .rows
            .iter()
            .filter(is_committed)
            .find(|row| !self.broker.is_on_log(row.number));
        lost.map(|row| format!("LOST: row {} of event {} is {:?}", row.event.id, row.number, row.now))
    }

    /// When everybody has left, nobody holds a lease but those whose last statement may have come after it, and theirs
    /// runs out.
    fn lease_left(&self) -> Option<String> {
        let is_over = self.publishers.iter().all(|publisher| !publisher.is_alive);
        let end = self.now + self.database_ahead_most + self.config.lease;
        let is_left = |holder: u64, until| !self.unheard.contains(&holder) || until > end;
        let mut leases = self.store.leases.iter().filter(|_| is_over);
        let (bucket, lease) = leases.find(|(_, lease)| lease.owner.is_some_and(|owner| is_left(owner, lease.until)))?;
        Some(format!(
            "LEASE LEFT: bucket {bucket} is {:?}'s until {:?}",
            lease.owner, lease.until
        ))
    }

    /// How often an event stands on its topic beyond the first time.
    pub(crate) fn duplicates(&self) -> u64 {
        let again = |log: &Vec<usize>| {
            let first: BTreeSet<usize> = log.iter().copied().collect();
            log.len() - first.len()
        };
        self.broker.logs.values().map(again).sum::<usize>() as u64
    }

    fn out_of_order(&self) -> Option<String> {
        let events = &self.store.events;
        for (place, log) in &self.broker.logs {
            let mut first: BTreeMap<usize, usize> = BTreeMap::new();
            for (at, number) in log.iter().enumerate() {
                let is_again = first.insert(*number, at).is_some_and(|before| {
                    first.insert(*number, before);
                    true
                });
                if is_again && self.setup.faults == Faults::None && !events[*number].is_redriven {
                    return Some(format!("DUPLICATE without a fault: event {number} in {log:?}"));
                }
            }
            for (a, at_a) in &first {
                for (b, at_b) in &first {
                    if at_a > at_b && is_promised(&self.store, *a, *b) {
                        return Some(format!(
                            "ORDER: event {a} must come before event {b} in {place:?}: {log:?}"
                        ));
                    }
                }
            }
        }
        None
    }
}

/// Whether event `a` is promised to come before event `b`.
fn is_promised(store: &Store, a: usize, b: usize) -> bool {
    let (first, second) = (&store.events[a], &store.events[b]);
    let of = |event: &Event| &store.transactions[event.transaction];
    let is_lost = |event: &Event| of(event).phase != Phase::Committed;
    if a == b || first.topic != second.topic || first.key != second.key || first.key.is_none() {
        return false;
    }
    if is_lost(first) || is_lost(second) || first.is_moved {
        return false;
    }
    let is_same = first.transaction == second.transaction && a < b;
    if !is_same && of(first).committed_at >= second.inserted_at {
        return false;
    }
    // Redriven rows and those behind a FAILED one under `continue` are listed apart; under `halt` the
    // followers wait for a failed one.
    let touched = |event: &Event| event.has_failed || event.is_redriven;
    match first.topic {
        0 => !touched(first) && !touched(second),
        _ => !touched(second) || first.has_failed,
    }
}
