//! What may happen next, and how likely it is.

use std::time::Duration;

use outbox_publisher::domain::topic::Lane;

use crate::relay::broker::Place;
use crate::relay::publisher::{Answer, Progress};
use crate::relay::rows::{Phase, Status};
use crate::relay::setup::Faults;
use crate::relay::world::World;
use crate::runs::Fault;

/// A step of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Write(usize),
    Execute(usize, usize),
    Answer(usize, usize),
    Refuse(usize, usize),
    Cut(usize, usize),
    Orphan(usize),
    Tick(usize),
    Tell(usize, Lane),
    Form(usize, Lane, Place),
    Resend(usize, Lane, Place),
    Handle(usize),
    Reject(usize),
    Respond(usize),
    LoseAnswer(usize),
    SlowAnswer(usize),
    Rebuild(usize, Lane),
    Topic(usize, bool),
    Crash(usize),
    Restart(usize),
    Freeze(usize),
    Thaw(usize),
    Leave(usize),
    CrashDatabase,
    LoseBroker,
    FindBroker,
    LoseDatabase,
    FindDatabase,
    /// A statement does not reach the server.
    Deny(usize, usize),
    /// Of a publisher's host, or behind the last of them of the database's.
    JumpClock(usize),
    Redrive(usize),
    DropLeaf,
    Forbid(usize),
    Leap,
    Jump,
    Wake(usize),
}

impl Action {
    /// The name of what a calm run sees seldom: faults, and what operators and deployments do.
    pub(crate) fn fault(self) -> Option<&'static str> {
        use Action::*;
        match self {
            Refuse(..) => Some("fault: statement refused"),
            Cut(..) => Some("fault: connection cut"),
            Reject(_) => Some("fault: request brushed aside"),
            LoseAnswer(_) => Some("fault: answer lost"),
            SlowAnswer(_) => Some("fault: answer held up"),
            Topic(_, false) => Some("fault: topic unknown"),
            Crash(_) => Some("fault: crash"),
            Freeze(_) => Some("fault: freeze"),
            Leave(_) => Some("fault: told to leave"),
            CrashDatabase => Some("fault: database crash"),
            LoseBroker => Some("fault: broker outage"),
            LoseDatabase => Some("fault: database outage"),
            JumpClock(_) => Some("fault: clock jump of a host"),
            Forbid(_) => Some("fault: topic forbidden or allowed again"),
            Leap => Some("fault: more than a second without anything"),
            Write(_)
            | Execute(..)
            | Answer(..)
            | Orphan(_)
            | Tick(_)
            | Tell(..)
            | Form(..)
            | Resend(..)
            | Handle(_)
            | Respond(_)
            | Rebuild(..)
            | Topic(_, true)
            | Restart(_)
            | Thaw(_)
            | FindBroker
            | FindDatabase
            | Deny(..)
            | Redrive(_)
            | DropLeaf
            | Jump
            | Wake(_) => None,
        }
    }
}

/// Outages of broker and database in one run.
const OUTAGES_MAX: u32 = 3;

type Actions = Vec<(Action, u32)>;

impl World {
    fn actions(&self) -> Actions {
        let mut all: Actions = Vec::with_capacity(64);
        let w = &self.weights;
        let transactions = &self.store.transactions;
        for slot in 0..3 {
            if self.store.is_away {
                break;
            }
            if let Some(number) = transactions.iter().position(|t| t.slot == slot && t.is_open()) {
                all.push((Action::Write(number), w[0]));
            }
        }
        for p in 0..self.publishers.len() {
            self.actions_of(p, &mut all);
        }
        let faults = self.has_faults();
        for pipe in 0..self.broker.pipes.len() {
            if !self.broker.is_away {
                all.push((Action::Handle(pipe), w[6]));
            }
            if faults {
                all.push((Action::Reject(pipe), 1));
            }
        }
        for answer in 0..self.broker.answers.len().min(3) {
            let held_until = self.broker.answers[answer].held_until;
            if self.is_quiet || held_until <= self.now {
                all.push((Action::Respond(answer), w[7]));
            }
            if faults {
                all.push((Action::LoseAnswer(answer), 1));
                if held_until.is_zero() && !self.setup.is_focused {
                    all.push((Action::SlowAnswer(answer), 1));
                }
            }
        }
        for orphan in 0..self.orphans.len() {
            all.push((Action::Orphan(orphan), w[2]));
        }
        if self.store.may_drop_leaf() {
            all.push((Action::DropLeaf, 1));
        }
        if faults {
            for topic in 0..2 {
                if self.chance_of_trouble(topic) {
                    all.push((Action::Forbid(topic), 1));
                }
            }
            if !self.setup.is_focused {
                self.offer_outages(&mut all);
            }
            if self.setup.faults == Faults::Database && self.database_crashes < 2 {
                all.push((Action::CrashDatabase, 1));
            }
        }
        if !self.is_quiet {
            for (at, row) in self.store.rows.iter().enumerate() {
                if row.now.status == Status::Failed && self.step.is_multiple_of(8) && self.is_redrivable(at) {
                    all.push((Action::Redrive(at), 1));
                }
            }
            all.push((Action::Leap, self.setup.leaps));
        }
        if !self.is_quiet || all.is_empty() {
            all.push((Action::Jump, 2));
        }
        for (action, weight) in &mut all {
            if action.fault().is_none() {
                *weight *= self.calm;
            }
        }
        self.offer_aimed(&mut all);
        all
    }

    /// A crash where the seed wants one, with four times the weight of all else.
    fn offer_aimed(&self, all: &mut Actions) {
        let (Some(aim), true) = (self.aim, self.has_faults()) else {
            return;
        };
        let weight = 4 * all.iter().map(|(_, weight)| weight).sum::<u32>().max(1);
        let awake = (0..self.publishers.len()).filter(|p| self.publishers[*p].is_awake());
        let there = awake.filter(|p| self.crash_points(*p).contains(&aim));
        all.extend(there.map(|p| (Action::Crash(p), weight)));
    }

    fn offer_outages(&self, all: &mut Actions) {
        let may_begin = self.outages < OUTAGES_MAX && self.step.is_multiple_of(4);
        match self.broker.is_away {
            true => all.push((Action::FindBroker, 1)),
            false if may_begin => all.push((Action::LoseBroker, 1)),
            false => {}
        }
        match self.store.is_away {
            true => all.push((Action::FindDatabase, 1)),
            false if may_begin => all.push((Action::LoseDatabase, 1)),
            false => {}
        }
        if self.step.is_multiple_of(4) {
            all.extend((0..=self.publishers.len()).map(|host| (Action::JumpClock(host), 1)));
        }
    }

    fn chance_of_trouble(&self, topic: usize) -> bool {
        self.broker.forbidden[topic] || self.step.is_multiple_of(8)
    }

    pub(crate) fn is_redrivable(&self, at: usize) -> bool {
        let row = &self.store.rows[at];
        self.store.transactions[row.transaction].phase == Phase::Committed
    }

    fn actions_of(&self, p: usize, all: &mut Actions) {
        let (w, publisher, faults) = (&self.weights, &self.publishers[p], self.has_faults());
        if !publisher.is_alive {
            if !publisher.is_leaving && !self.is_quiet {
                all.push((Action::Restart(p), 1));
            }
            return;
        }
        for (at, statement) in publisher.statements.iter().enumerate() {
            match &statement.progress {
                Progress::Done(_) if publisher.is_frozen => {}
                Progress::Done(_) => all.push((Action::Answer(p, at), w[1])),
                Progress::Sent | Progress::Half(..) if self.store.is_away => all.push((Action::Deny(p, at), w[2])),
                Progress::Sent | Progress::Half(..) => all.push((Action::Execute(p, at), w[2])),
            }
            if faults && !matches!(statement.progress, Progress::Done(Answer::Lost)) {
                if self.step.is_multiple_of(4) {
                    all.push((Action::Cut(p, at), 1));
                }
                if matches!(statement.progress, Progress::Sent) {
                    all.push((Action::Refuse(p, at), 1));
                }
            }
        }
        for lane in Lane::BOTH {
            let client = &publisher.clients[lane as usize];
            for (place, queue) in &client.queues {
                if client.is_fatal {
                    continue;
                }
                if !queue.waiting.is_empty() && queue.in_flight.len() < 3 {
                    all.push((Action::Form(p, lane, *place), w[5]));
                }
                if let Some(first) = queue.in_flight.front()
                    && !self.broker.is_under_way(client.id, *place, first.sequence)
                {
                    all.push((Action::Resend(p, lane, *place), 3));
                }
            }
        }
        if publisher.is_frozen {
            all.push((Action::Thaw(p), 1));
            return;
        }
        if faults {
            all.push((Action::Freeze(p), 1));
            if self.crashes < 3 {
                all.push((Action::Crash(p), 1));
            }
        }
        if self.clock(p) >= self.wake_at[p] {
            all.push((Action::Tick(p), w[3]));
        }
        for lane in Lane::BOTH {
            if !publisher.facts[lane as usize].is_empty() {
                all.push((Action::Tell(p, lane), w[7]));
            }
            if publisher.rebuilds[lane as usize].is_some() {
                all.push((Action::Rebuild(p, lane), w[4]));
            }
        }
        if !publisher.topics_asked.is_empty() {
            if !self.broker.is_away {
                all.push((Action::Topic(p, true), 5));
            }
            if faults || self.broker.is_away {
                all.push((Action::Topic(p, false), 1));
            }
        }
        if !self.is_quiet {
            all.push((Action::Wake(p), 1));
            if !publisher.is_leaving && self.step.is_multiple_of(8) {
                all.push((Action::Leave(p), 1));
            }
        }
    }

    fn draw(&mut self, all: &Actions) -> Action {
        let total: u32 = all.iter().map(|(_, weight)| weight).sum();
        let mut left = self.chance.below(total as usize) as u32;
        for (action, weight) in all {
            if left < *weight {
                return *action;
            }
            left -= weight;
        }
        all[0].0
    }

    /// One step. False if nothing can happen.
    pub(crate) fn step(&mut self) -> bool {
        let all = self.actions();
        let action = self.draw(&all);
        self.step += 1;
        let pace = if self.is_quiet { 50 } else { self.pace };
        self.now += Duration::from_micros(self.chance.below(pace as usize) as u64);
        self.note(|world| format!("{} at {:?}: {action:?}", world.step, world.now));
        match action.fault() {
            Some(name) => self.go_wrong(action, name),
            None => self.apply(action),
        }
        let before = self
            .trace
            .as_ref()
            .and_then(|lines| lines.iter().rev().find(|line| line.starts_with("      rows")).cloned());
        if self.trace.is_some() && before.as_ref() != Some(&self.picture()) {
            self.note(Self::picture);
        }
        true
    }

    /// Unless it is left out.
    fn go_wrong(&mut self, action: Action, name: &'static str) {
        let number = self.faults_drawn;
        self.faults_drawn += 1;
        if self.setup.left_out.faults.contains(&number) {
            self.note(|_| "      left out".to_owned());
            return;
        }
        let step = self.step;
        self.faults.push(Fault { number, step, name });
        self.coverage.hit(name);
        self.apply(action);
    }

    fn picture(&self) -> String {
        let rows = self.store.rows.iter().map(|row| {
            let phase = match self.store.transactions[row.transaction].phase {
                Phase::Committed => 'c',
                Phase::Aborted => 'x',
                _ => 'o',
            };
            let dropped = if row.is_dropped { "-" } else { "" };
            let status = match row.now.status {
                Status::Pending => 'W',
                Status::Published => 'D',
                Status::Failed => 'F',
            };
            format!(
                "{dropped}{}(e{}b{}){phase}{status}{}",
                row.event.id, row.number, row.event.bucket, row.now.lane
            )
        });
        let leases = self
            .store
            .leases
            .iter()
            .map(|(b, l)| format!("{b}:{:?}/e{}/low{}", l.owner, l.epoch, l.low_id));
        format!(
            "      rows {} leases {} sequence {} logs {:?}",
            rows.collect::<Vec<_>>().join(" "),
            leases.collect::<Vec<_>>().join(" "),
            self.store.sequence,
            self.broker.logs
        )
    }
}
