//! The broker and the consumer group: who has which partition, from where it is read, and up to where it is committed.

use triage_service::domain::record::Record;
use triage_service::intake::{Assignment, Fact, RevokeId};

use crate::intake::member::{Held, Revoking};
use crate::intake::setup::Entry;
use crate::intake::world::World;

/// A partition, as the broker and the group see it.
pub(crate) struct Partition {
    pub(crate) log: Vec<Entry>,
    /// Entries written so far.
    pub(crate) written: usize,
    pub(crate) owner: Option<(usize, Assignment)>,
    /// Who had it last, with which membership, and whether it was given back.
    pub(crate) before: Option<(usize, u64, bool)>,
    pub(crate) committed: i64,
}

/// An offset on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    member: usize,
    epoch: u64,
    partition: i32,
    assignment: Assignment,
    offset: i64,
}

impl Request {
    pub(crate) fn is_of(&self, member: usize, epoch: u64) -> bool {
        self.member == member && self.epoch == epoch
    }

    pub(crate) fn is_for(&self, partition: i32) -> bool {
        self.partition == partition
    }
}

impl Partition {
    pub(crate) fn end(&self) -> i64 {
        self.log.last().map_or(0, |entry| entry.record.at.offset + 1)
    }
}

impl World {
    pub(crate) fn fetch(&mut self, m: usize) {
        let has_all = self.chance.odds(1, 2);
        let mut records: Vec<Record> = Vec::new();
        for (&p, held) in &mut self.members[m].held {
            let partition = &self.partitions[p as usize];
            if held.is_paused || (!has_all && !records.is_empty()) {
                continue;
            }
            let end = partition.written.min(held.next + 1 + self.chance.below(5));
            records.extend(
                partition.log[held.next.min(end)..end]
                    .iter()
                    .map(|entry| entry.record.clone()),
            );
            held.next = held.next.max(end);
        }
        self.members[m].receive(records);
    }

    /// An offset that a member has stored is on its way.
    pub(crate) fn send_offset(&mut self, m: usize, p: i32) {
        let member = &self.members[m];
        let held = &member.held[&p];
        let offset = held.stored.expect("only offered where one is stored");
        let (epoch, assignment) = (member.epoch, held.assignment);
        self.requests.push(Request {
            member: m,
            epoch,
            partition: p,
            assignment,
            offset,
        });
    }

    pub(crate) fn assign(&mut self, p: i32, m: usize) {
        self.assignments += 1;
        let states = self.take_over_states(p, m);
        self.coverage.hit_all(states);
        let (partition, assignment) = (&mut self.partitions[p as usize], Assignment(self.assignments));
        partition.owner = Some((m, assignment));
        let next = partition
            .log
            .iter()
            .take_while(|entry| entry.record.at.offset < partition.committed)
            .count();
        let next_entry = partition.log.get(next).filter(|_| next < partition.written);
        if next_entry.is_some_and(|entry| self.store.lock().judge.is_handled(&entry.record.at)) {
            self.coverage
                .hit_all(["fault: duplicate delivery", "take-over: records committed, offset not"]);
        }
        let held = Held {
            assignment,
            next,
            stored: None,
            acknowledged: partition.committed,
            is_paused: false,
        };
        let member = &mut self.members[m];
        member.held.insert(p, held);
        member.arrivals.push_back(Fact::Assigned {
            partition: p,
            assignment,
        });
    }

    pub(crate) fn revoke(&mut self, m: usize) {
        let has_all = self.chance.odds(1, 2);
        if !self.members[m].attempts.is_empty() {
            self.coverage.hit("conflict: revoke while a transaction runs");
        }
        let member = &mut self.members[m];
        let one = self.chance.below(member.held.len());
        let is_meant = |(at, p): (usize, &i32)| (has_all || at == one).then_some(*p);
        let partitions: Vec<i32> = member.held.keys().enumerate().filter_map(is_meant).collect();
        member.revokes += 1;
        let revoke = RevokeId(member.revokes);
        member.revoking = Some(Revoking {
            id: revoke,
            partitions: partitions.clone(),
            is_answered: false,
        });
        member.arrivals.push_back(Fact::Revoking { revoke, partitions });
    }

    /// The end of a revoke, answered or not: the fence closes, what was stored is committed.
    pub(crate) fn give_back(&mut self, m: usize) {
        let Some(revoking) = self.members[m].revoking.take() else {
            return;
        };
        self.release(m, &revoking.partitions);
    }

    fn release(&mut self, m: usize, partitions: &[i32]) {
        for &p in partitions {
            let Some(held) = self.members[m].held.remove(&p) else {
                continue;
            };
            let (epoch, assignment) = (self.members[m].epoch, held.assignment);
            if let Some(offset) = held
                .stored
                .filter(|stored| *stored > held.acknowledged && self.chance.odds(3, 4))
            {
                self.take_offset(Request {
                    member: m,
                    epoch,
                    partition: p,
                    assignment,
                    offset,
                });
            }
            let partition = &mut self.partitions[p as usize];
            if partition.owner == Some((m, assignment)) {
                partition.owner = None;
                partition.before = Some((m, epoch, true));
            }
        }
    }

    /// The group takes an offset from the partition's owner, and from nobody else.
    pub(crate) fn take_offset(&mut self, request: Request) {
        let Request {
            member: m,
            epoch,
            partition: p,
            assignment,
            offset,
        } = request;
        let member = &mut self.members[m];
        let partition = &mut self.partitions[p as usize];
        if member.epoch != epoch || partition.owner != Some((m, assignment)) {
            self.coverage.hit("conflict: offset of an assignment that is over");
            return;
        }
        partition.committed = offset;
        if let Some(held) = member.held.get_mut(&p) {
            held.acknowledged = offset;
        }
        self.store.lock().judge.note_offset(p, offset);
    }

    pub(crate) fn disown(&mut self, m: usize) {
        let epoch = self.members[m].epoch;
        for partition in &mut self.partitions {
            if partition.owner.is_some_and(|(owner, _)| owner == m) {
                partition.owner = None;
                partition.before = Some((m, epoch, false));
            }
        }
    }

    /// The end of a drained process: its consumer leaves the group.
    pub(crate) fn close(&mut self, m: usize) {
        if !self.members[m].attempts.is_empty() {
            self.store
                .lock()
                .judge
                .broken
                .get_or_insert("DRAINED with a transaction in flight".to_owned());
        }
        let partitions: Vec<i32> = self.members[m].held.keys().copied().collect();
        self.release(m, &partitions);
        self.disown(m);
        self.members[m].die();
    }
}
