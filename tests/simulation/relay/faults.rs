//! What goes wrong: processes that end, hosts whose clocks jump, a broker and a database out of reach.

use std::time::Duration;

use crate::relay::broker::{Place, Queue};
use crate::relay::publisher::{Answer, Progress};
use crate::relay::setup::FORGET_AFTER;
use crate::relay::world::World;

impl World {
    /// A process ends where it stands. What it sent is carried out all the same.
    pub(crate) fn crash(&mut self, p: usize) {
        self.crashes += 1;
        let points = self.crash_points(p);
        self.aim = self.aim.filter(|aim| !points.contains(aim));
        self.coverage.hit_all(points);
        let mut next = self.new_publisher();
        next.is_alive = false;
        let old = std::mem::replace(&mut self.publishers[p], next);
        self.unheard.insert(old.instance);
        for statement in old.statements {
            if !matches!(statement.progress, Progress::Done(_)) {
                self.orphans.push((old.instance, statement));
            }
        }
    }

    /// The server dies. Connections in use break; an idle one behind a pooler sees nothing, and what the
    /// pooler had not yet passed on is carried out by the server that comes back.
    pub(crate) fn crash_database(&mut self) {
        self.database_crashes += 1;
        self.store.crash(&mut self.chance);
        self.orphans.clear();
        for publisher in &mut self.publishers {
            for statement in &mut publisher.statements {
                let survives = self.chance.odds(1, 2) && !matches!(statement.progress, Progress::Half(..));
                if !survives {
                    statement.progress = Progress::Done(Answer::Lost);
                }
            }
        }
    }

    /// The clock of a publisher's host jumps ahead, or stands still while the others' go on; that of the
    /// database's host is put forward or back.
    pub(crate) fn jump_clock(&mut self, host: usize) {
        let ms = Duration::from_millis;
        if host == self.publishers.len() {
            let by = self.chance.pick(&[ms(5), ms(300)]);
            self.database_ahead = match self.chance.below(3) {
                0 => self.database_ahead + self.config.lease + by,
                1 => self.database_ahead + by,
                _ => self.database_ahead - by,
            };
            self.database_ahead_most = self.database_ahead_most.max(self.database_ahead);
            return;
        }
        let by = self.chance.pick(&[ms(5), ms(400), ms(4_000)]);
        if self.chance.odds(1, 2) {
            self.publishers[host].ahead += by;
            return;
        }
        // A host that stands still for longer than the broker remembers a producer is promised nothing: its
        // clock does not tell it that its windows have to close.
        self.now += by;
        self.publishers[host].behind += by;
        let clients = self.publishers[host].clients.each_ref().map(|client| client.id);
        self.broker.excuse(&clients, by);
    }

    /// No statement reaches the server; what it was doing it may still do.
    pub(crate) fn lose_database(&mut self) {
        self.outages += 1;
        self.store.is_away = true;
    }

    /// Producers that were idle for long are forgotten by the broker.
    pub(crate) fn forget_idle(&mut self) {
        let publishers = &self.publishers;
        // An acknowledgement that its publisher has not heard of is no idleness yet.
        let is_busy = |id: u64, place: Place| {
            publishers
                .iter()
                .flat_map(|publisher| publisher.clients.iter().zip(&publisher.facts))
                .any(|(client, facts)| {
                    let has_rows = |queue: &Queue| !queue.waiting.is_empty() || !queue.in_flight.is_empty();
                    client.id == id && (!facts.is_empty() || client.queues.get(&place).is_some_and(has_rows))
                })
        };
        let count = self.broker.forget_idle(self.now, FORGET_AFTER, is_busy);
        self.coverage.add("producers forgotten", count as u64);
    }
}
