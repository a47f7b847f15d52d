//! What may happen next, and how likely it is.

use triage_service::intake::batch::BatchId;

use crate::intake::member::Member;
use crate::intake::points;
use crate::intake::setup::Faults;
use crate::intake::transactions::Phase;
use crate::intake::world::World;
use crate::runs::Fault;

/// Requests for offsets that may be under way.
const REQUESTS_MAX: usize = 6;

/// Something that happens: `m` members, `p` partitions, `x` transactions.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    /// The store does a step of a statement.
    Serve(usize),
    /// An attempt hears the answer.
    Poll(usize, BatchId),
    /// An attempt has taken too long.
    GiveUp(usize, BatchId),
    RetryDue(usize, usize),
    /// The loop takes what the consumer's thread has sent.
    Arrive(usize),
    /// A record is written to the topic.
    Write(usize),
    Fetch(usize),
    SendOffset(usize, i32),
    TakeOffset(usize),
    LoseOffset(usize),
    Assign(i32, usize),
    Revoke(usize),
    FinishRevoke(usize),
    AbandonRevoke(usize),
    LoseSession(usize),
    /// A member hears that its session is over, and joins again.
    Notice(usize),
    Crash(usize),
    Restart(usize),
    Drain(usize),
    Close(usize),
    /// A connection is cut; the server does not know yet.
    Cut(usize),
    /// The server ends a session.
    EndSession(usize),
    LockTimeout(usize),
    DatabaseCrash,
    LoseDatabase,
    FindDatabase,
    LoseBroker,
    FindBroker,
    JumpClock(usize),
    /// Retention takes a claim.
    Forget,
}

impl Action {
    /// The name under which it is counted, if it is a fault or what operators and deployments do.
    fn fault(self) -> Option<&'static str> {
        match self {
            Self::GiveUp(..) => Some("fault: attempt given up"),
            Self::LoseOffset(_) => Some("fault: offset lost"),
            Self::Revoke(_) => Some("fault: rebalance"),
            Self::Drain(_) => Some("fault: told to leave"),
            Self::AbandonRevoke(_) => Some("fault: revoke not answered in time"),
            Self::LoseSession(_) => Some("fault: session lost"),
            Self::Crash(_) => Some("fault: crash"),
            Self::Cut(_) => Some("fault: connection cut"),
            Self::EndSession(_) => Some("fault: session ended"),
            Self::LockTimeout(_) => Some("fault: lock timeout"),
            Self::DatabaseCrash => Some("fault: database crash"),
            Self::LoseDatabase => Some("fault: database outage"),
            Self::LoseBroker => Some("fault: broker outage"),
            Self::JumpClock(_) => Some("fault: clock jump of a host"),
            Self::Forget => Some("fault: claim taken by retention"),
            Self::Serve(_)
            | Self::Poll(..)
            | Self::RetryDue(..)
            | Self::Arrive(_)
            | Self::Write(_)
            | Self::Fetch(_)
            | Self::SendOffset(..)
            | Self::TakeOffset(_)
            | Self::Assign(..)
            | Self::FinishRevoke(_)
            | Self::Notice(_)
            | Self::Restart(_)
            | Self::Close(_)
            | Self::FindDatabase
            | Self::FindBroker => None,
        }
    }

    /// Whether it uses up one of the faults that a run may meet.
    fn is_rationed(self) -> bool {
        self.fault().is_some() && !matches!(self, Self::Revoke(_) | Self::Drain(_))
    }
}

/// Actions and their weights.
type Menu = Vec<(Action, u32)>;

impl World {
    /// One action. False if nothing can happen.
    pub(crate) fn step(&mut self) -> bool {
        let mut menu = Menu::new();
        self.offer_store(&mut menu);
        self.offer_processes(&mut menu);
        self.offer_group(&mut menu);
        if !self.is_quiet && self.faults_left > 0 {
            menu.iter_mut().for_each(|(_, weight)| *weight *= self.calm);
            self.offer_faults(&mut menu);
        }
        if !self.is_quiet {
            self.offer_aimed(&mut menu);
        }
        let total: u32 = menu.iter().map(|(_, weight)| weight).sum();
        if total == 0 {
            return false;
        }
        let mut draw = self.chance.below(total as usize) as u32;
        let chosen = menu.iter().find(|(_, weight)| {
            let is_it = draw < *weight;
            draw = draw.saturating_sub(*weight);
            is_it
        });
        let action = chosen.expect("the draw is below the total").0;
        self.log(|world| format!("{} {action:?}", world.store.lock().now));
        match action.fault() {
            Some(name) => self.go_wrong(action, name),
            None => self.act(action),
        }
        true
    }

    /// Unless it is left out.
    fn go_wrong(&mut self, action: Action, name: &'static str) {
        let number = self.faults_drawn;
        self.faults_drawn += 1;
        if action.is_rationed() {
            self.faults_left = self.faults_left.saturating_sub(1);
        }
        if self.setup.left_out.faults.contains(&number) {
            self.log(|_| "  left out".to_owned());
            return;
        }
        let step = self.store.lock().now;
        self.faults.push(Fault { number, step, name });
        self.coverage.hit(name);
        self.act(action);
    }

    fn offer_store(&self, menu: &mut Menu) {
        let store = self.store.lock();
        if store.is_away {
            menu.push((Action::FindDatabase, 1));
        }
        for (x, transaction) in store.open_ones() {
            if transaction.call.is_some() && !store.is_blocked(x) {
                menu.push((Action::Serve(x), self.weights[0]));
            }
            if transaction.is_orphan {
                menu.push((Action::EndSession(x), 1));
            }
        }
    }

    fn offer_processes(&self, menu: &mut Menu) {
        let store = self.store.lock();
        for (m, member) in self.members.iter().enumerate() {
            if !member.is_alive {
                menu.push((Action::Restart(m), 1));
                continue;
            }
            for (&id, attempt) in &member.attempts {
                if store.transactions[attempt.transaction].answer.is_some() {
                    menu.push((Action::Poll(m, id), self.weights[1]));
                }
            }
            menu.extend((0..member.pauses.len()).map(|at| (Action::RetryDue(m, at), 1)));
            if !member.arrivals.is_empty() {
                menu.push((Action::Arrive(m), self.weights[2]));
            }
            if member.is_drained {
                menu.push((Action::Close(m), 1));
            }
        }
    }

    fn offer_group(&self, menu: &mut Menu) {
        if self.is_broker_away {
            menu.push((Action::FindBroker, 1));
            let members = self.members.iter().enumerate().filter(|(_, member)| member.is_alive);
            for (m, member) in members {
                self.offer_offsets(m, member, menu); // they stay on their way
            }
            return;
        }
        for (p, partition) in self.partitions.iter().enumerate() {
            if partition.written < partition.log.len() {
                menu.push((Action::Write(p), self.weights[3]));
            }
        }
        for (m, member) in self.members.iter().enumerate().filter(|(_, member)| member.is_alive) {
            self.offer_offsets(m, member, menu);
            if let Some(revoking) = &member.revoking {
                if revoking.is_answered {
                    menu.push((Action::FinishRevoke(m), self.weights[5]));
                }
                continue; // the consumer's thread waits
            }
            let written = |p: i32| self.partitions[p as usize].written;
            if member
                .held
                .iter()
                .any(|(&p, held)| !held.is_paused && held.next < written(p))
                && !member.is_drained
            {
                menu.push((Action::Fetch(m), self.weights[6]));
            }
            if !member.is_valid {
                menu.push((Action::Notice(m), 1));
            } else if !member.is_draining {
                let free = self
                    .partitions
                    .iter()
                    .enumerate()
                    .filter(|(_, partition)| partition.owner.is_none());
                menu.extend(free.map(|(p, _)| (Action::Assign(p as i32, m), self.weights[7])));
                if !self.is_quiet && !member.held.is_empty() && self.chance_of_rebalance() {
                    menu.extend([(Action::Revoke(m), 1), (Action::Drain(m), 1)]);
                }
            }
        }
        if !self.requests.is_empty() {
            menu.push((Action::TakeOffset(0), 3)); // one connection: they arrive in order
        }
    }

    fn offer_offsets(&self, m: usize, member: &Member, menu: &mut Menu) {
        for (&p, held) in &member.held {
            if held.stored.is_some_and(|stored| stored > held.acknowledged) && self.requests.len() < REQUESTS_MAX {
                menu.push((Action::SendOffset(m, p), self.weights[4]));
            }
        }
    }

    /// Rebalances come in some runs only: without them batches grow and bisect.
    fn chance_of_rebalance(&self) -> bool {
        self.weights[5] > 1
    }

    /// The fault that the seed aims at, where a process or a connection is at its point.
    fn offer_aimed(&self, menu: &mut Menu) {
        let Some(aim) = self.aim else { return };
        let weight = 4 * menu.iter().map(|(_, weight)| weight).sum::<u32>().max(1);
        for (m, member) in self.members.iter().enumerate().filter(|(_, member)| member.is_alive) {
            if self.crash_points(m).contains(&aim) {
                menu.push((Action::Crash(m), weight));
            }
            let store = self.store.lock();
            let transactions = member.attempts.values().map(|attempt| attempt.transaction);
            let at_it = transactions.filter(|x| points::cut_point(&store, *x) == Some(aim));
            menu.extend(at_it.map(|x| (Action::Cut(x), weight)));
        }
    }

    fn offer_faults(&self, menu: &mut Menu) {
        let store = self.store.lock();
        for (m, member) in self.members.iter().enumerate() {
            if member.is_valid {
                menu.push((Action::LoseSession(m), 1));
            }
            if member.is_alive {
                menu.push((Action::JumpClock(m), 1));
                menu.push((Action::Crash(m), 1));
                menu.extend(member.attempts.keys().map(|&id| (Action::GiveUp(m, id), 1)));
            }
            if member.revoking.as_ref().is_some_and(|revoking| !revoking.is_answered) {
                menu.push((Action::AbandonRevoke(m), 1));
            }
        }
        if !self.requests.is_empty() {
            menu.push((Action::LoseOffset(0), 1));
        }
        if !self.is_broker_away {
            menu.push((Action::LoseBroker, 1));
        }
        for (x, transaction) in store.open_ones().filter(|(_, transaction)| transaction.call.is_some()) {
            if store.is_blocked(x) && !transaction.is_orphan {
                menu.push((Action::LockTimeout(x), 2));
            }
        }
        if self.setup.faults < Faults::Database {
            return;
        }
        for attempt in self.members.iter().flat_map(|member| member.attempts.values()) {
            let transaction = &store.transactions[attempt.transaction];
            if transaction.phase != Phase::Aborted && !transaction.is_orphan {
                let weight = if transaction.is_committing { 4 } else { 1 };
                menu.push((Action::Cut(attempt.transaction), weight));
            }
        }
        let sessions = store.open_ones().filter(|(_, transaction)| !transaction.is_orphan);
        menu.extend(sessions.map(|(x, _)| (Action::EndSession(x), 1)));
        menu.push((Action::DatabaseCrash, 1));
        if !store.is_away {
            menu.push((Action::LoseDatabase, 1));
        }
        if !store.forgettable().is_empty() {
            menu.push((Action::Forget, 2));
        }
    }
}
