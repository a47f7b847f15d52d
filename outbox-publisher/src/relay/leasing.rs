//! Which buckets are held, how long, what is given back.

use std::time::Duration;

use super::{Command, Op, Relay};
use crate::domain::rules::Rule;
use crate::domain::share::fair_share;
use crate::domain::tenancy::Tenancy;
use crate::ports::{ControlAnswer, ControlRequest, Held};

/// A control statement under way.
#[derive(Debug)]
pub(super) struct Controlling {
    op: Op,
    sent_at: Duration,
    request: ControlRequest,
}

impl Relay {
    pub(super) fn control(&mut self, now: Duration, commands: &mut Vec<Command>) {
        if self.is_draining && self.controlling.is_none() && self.tenancies.values().any(|t| !t.is_busy()) {
            self.next_control = self.next_control.min(now); // what is free is given back at once
        }
        if self.controlling.is_some() || now < self.next_control {
            return;
        }
        let settled_below = self.marks.low(&self.rules);
        let (release, renew): (Vec<_>, Vec<_>) = self
            .tenancies
            .values()
            .partition(|tenancy| tenancy.is_draining && !tenancy.is_busy());
        let release: Vec<Held> = release.into_iter().map(|t| t.held(settled_below)).collect();
        let renew: Vec<Held> = renew.into_iter().map(|t| t.held(settled_below)).collect();
        let has_unsettled = self.settle_before_taking && !(self.acked.is_empty() && self.settling.is_none());
        let is_counted = self.instances > 0 && self.life.is_some();
        let acquire = if self.is_draining || has_unsettled || !is_counted {
            0
        } else {
            fair_share(self.instances).saturating_sub(renew.len())
        };
        if !has_unsettled {
            self.settle_before_taking = false;
        }
        for given in &release {
            self.forget_bucket(given.bucket);
        }
        let op = self.next_op();
        let (lease, is_leaving, life) = (self.config.lease, self.is_draining, self.life);
        let request = ControlRequest {
            renew,
            release,
            acquire,
            lease,
            is_leaving,
            life,
        };
        self.controlling = Some(Controlling {
            op,
            sent_at: now,
            request: request.clone(),
        });
        self.next_control = now + self.config.renew_interval;
        commands.push(Command::Control(op, request));
    }

    /// The buckets held, each with what its lease would say now.
    pub fn held(&self) -> Vec<Held> {
        let settled_below = self.marks.low(&self.rules);
        self.tenancies.values().map(|t| t.held(settled_below)).collect()
    }

    /// Leases were renewed, given back and taken.
    pub fn control_done(&mut self, op: Op, answer: ControlAnswer, now: Duration) {
        if self.controlling.as_ref().is_none_or(|control| control.op != op) {
            return;
        }
        let Controlling { sent_at, request, .. } = self.controlling.take().expect("just seen");
        if self.life.is_some_and(|life| life != answer.life) {
            self.life = Some(answer.life);
            if self.rules.hold(Rule::NoticeRecovery) {
                self.store_lost(now);
                return;
            }
        }
        self.life = Some(answer.life);
        for held in &request.renew {
            if !answer.kept.contains(&held.bucket) {
                self.lose(held.bucket, held.epoch);
            } else if let Some(tenancy) = self.tenancy(held.bucket, held.epoch) {
                tenancy.low = tenancy.low.max(held.low_id);
            }
        }
        // Our own clock, from before the statement was sent, less a margin for its drift.
        self.lease_until = sent_at + self.config.lease.mul_f64(0.8);
        let is_first_count = self.instances == 0;
        self.instances = answer.instances.max(1);
        for taken in answer.acquired {
            self.tally.taken += 1;
            let mut tenancy = Tenancy::new(taken.bucket, taken.epoch, taken.low_id);
            tenancy.is_draining = self.is_draining;
            tenancy.is_looked = !self.rules.hold(Rule::LookBeforeProducing);
            self.look_after.remove(&taken.bucket);
            self.tenancies.insert(taken.bucket, tenancy);
            self.next_look = Duration::ZERO;
            self.next_read = self.next_read.min(now);
        }
        if is_first_count {
            self.next_control = now;
        }
        self.give_up_surplus(now);
    }

    fn give_up_surplus(&mut self, now: Duration) {
        let share = fair_share(self.instances);
        let mut surplus = self
            .tenancies
            .values()
            .filter(|t| !t.is_draining)
            .count()
            .saturating_sub(share);
        for tenancy in self.tenancies.values_mut().rev() {
            if surplus == 0 {
                break;
            }
            if !tenancy.is_draining {
                tenancy.is_draining = true;
                surplus -= 1;
                self.next_control = self.next_control.min(now + Duration::from_millis(50));
            }
        }
    }

    pub(super) fn control_refused(&mut self, op: Op, at: Duration) {
        if self.controlling.as_ref().is_some_and(|control| control.op == op) {
            let control = self.controlling.take().expect("just seen");
            // Whether the release happened is not known: what is left of it runs out by itself.
            drop(control);
            self.next_control = at;
        }
    }

    /// Another owner has the bucket: what memory knows of it is over. Its acknowledged rows are still
    /// marked, since that they are on their topic is true whoever writes it down.
    pub(super) fn lose(&mut self, bucket: i16, epoch: i64) {
        if self.tenancy(bucket, epoch).is_some() {
            self.forget_bucket(bucket);
            self.changes.forget(bucket);
            self.tally.lost += 1;
        }
    }

    /// A row of a bucket that is gone cannot clear its topic any more, nor keep it under suspicion.
    fn forget_bucket(&mut self, bucket: i16) {
        self.tenancies.remove(&bucket);
        self.look_after.remove(&bucket);
        for topic in &mut self.topics {
            topic.suspects.retain(|(suspect, _)| *suspect != bucket);
            topic.is_suspect &= !topic.suspects.is_empty();
        }
    }

    /// Every bucket begins a new tenancy, after what is acknowledged was settled.
    pub(super) fn abandon_all(&mut self) {
        self.tenancies.clear();
        self.look_after.clear();
        self.changes.clear();
        self.marks.forget();
        self.sample = 0;
        self.lease_until = Duration::ZERO;
        self.settle_before_taking = true;
        for topic in &mut self.topics {
            topic.suspects.clear();
        }
    }
}

impl Tenancy {
    fn held(&self, settled_below: Option<i64>) -> Held {
        Held {
            bucket: self.bucket,
            epoch: self.epoch,
            low_id: self.low_id(settled_below),
        }
    }
}
