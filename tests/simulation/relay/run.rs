//! A run from its seed to its verdict.

use crate::relay::rows::Status;
use crate::relay::setup::Setup;
use crate::relay::world::World;
use crate::runs::Outcome;

/// Steps after which a run that has not come to rest never will.
const QUIET_STEPS_MAX: usize = 6_000;

/// Runs one seed.
pub(crate) fn run(setup: &Setup, seed: u64, is_traced: bool) -> Outcome {
    let mut world = World::new(setup, seed);
    world.trace = is_traced.then(Vec::new);
    let broken = world.live();
    if is_traced {
        let events = world.store.events.clone();
        for (number, event) in events.iter().enumerate() {
            let transaction = world.store.transactions[event.transaction].clone();
            world.note(|_| {
                format!(
                    "event {number}: {event:?} in {:?} at {}",
                    transaction.phase, transaction.committed_at
                )
            });
        }
    }
    Outcome {
        broken,
        coverage: world.coverage,
        trace: world.trace.unwrap_or_default(),
        faults: world.faults,
        rows: world.rows_drawn,
    }
}

impl World {
    fn live(&mut self) -> Option<String> {
        let steps = 60 + self.chance.below(800);
        for step in 0..steps {
            if self.setup.left_out.ends_at(self.step) {
                break;
            }
            self.step();
            if self.store.broken.is_some() {
                return self.store.broken.take();
            }
            if step > 40 && self.is_at_rest() {
                break;
            }
        }
        self.settle_down();
        if !self.come_to(|world| world.is_at_rest()) {
            return self
                .store
                .broken
                .take()
                .or_else(|| self.verdict())
                .or(Some("never at rest".to_owned()));
        }
        self.is_ending = true;
        for p in 0..self.publishers.len() {
            if self.publishers[p].is_alive && !self.publishers[p].is_leaving {
                self.publishers[p].is_leaving = true;
                let now = self.clock(p);
                self.publishers[p].relay.drain(now);
            }
            if self.publishers[p].is_alive {
                self.advance(p);
            }
        }
        self.coverage.add("fault: duplicate delivery", self.duplicates());
        let is_empty = self.come_to(|world| world.publishers.iter().all(|publisher| !publisher.is_alive));
        let undrained = (!is_empty).then(|| "UNDRAINED: a publisher never gave everything back".to_owned());
        self.store.broken.take().or_else(|| self.verdict()).or(undrained)
    }

    /// Faults end: what is down comes up, what is forbidden is allowed.
    pub(crate) fn settle_down(&mut self) {
        self.note(|_| "-- quiet".to_owned());
        self.is_quiet = true;
        self.quiet_since = self.now;
        self.weights = [3; 8];
        self.broker.forbidden = [false; 2];
        self.broker.is_away = false;
        self.store.is_away = false;
        for p in 0..self.publishers.len() {
            self.publishers[p].is_frozen = false;
            if !self.publishers[p].is_alive {
                self.publishers[p] = self.new_publisher();
            }
            self.wake_at[p] = self.clock(p);
        }
    }

    /// Steps until something holds; operators redrive meanwhile. False if it never does.
    fn come_to(&mut self, holds: impl Fn(&Self) -> bool) -> bool {
        for step in 0..QUIET_STEPS_MAX {
            if holds(self) || self.store.broken.is_some() {
                return true;
            }
            let is_waiting = self.store.open_rows(Status::Pending).next().is_some();
            if !is_waiting || step % 300 == 299 {
                self.redrive_all();
            }
            self.step();
        }
        false
    }

    fn redrive_all(&mut self) {
        if self.store.transactions.iter().any(|transaction| transaction.is_open()) {
            return;
        }
        let failed = |at: &usize| self.store.rows[*at].now.status == Status::Failed && self.is_redrivable(*at);
        let failed: Vec<usize> = (0..self.store.rows.len()).filter(failed).collect();
        for at in failed {
            self.note(|world| format!("operator redrives row {}", world.store.rows[at].event.id));
            self.store.redrive(at, self.step);
        }
    }
}
