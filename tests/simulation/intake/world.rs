//! The world of a run: members, a group that assigns partitions, a store. One action at a time.

use std::sync::Arc;

use crate::chance::Chance;
use crate::coverage::Coverage;
use chrono::TimeDelta;
use triage_service::intake::attempt::{Tally, Triage};
use triage_service::intake::batch::BatchId;
use triage_service::intake::{Fact, Intake, Limits, Verdict};

use crate::intake::group::{Partition, Request};
use crate::intake::inbox::SharedStore;
use crate::intake::judge::Judge;
use crate::intake::member::{Ended, Member};
use crate::intake::points;
use crate::intake::schedule::Action;
use crate::intake::setup::{Entry, Faults, Setup};
use crate::intake::store::Store;
use crate::intake::transactions::{Call, Trouble};
use crate::runs::Fault;

pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) chance: Chance,
    pub(crate) coverage: Coverage,
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) store: SharedStore,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) members: Vec<Member>,
    /// Offsets on their way to the group.
    pub(crate) requests: Vec<Request>,
    pub(crate) weights: [u32; 8],
    /// Faults to come.
    pub(crate) faults_left: usize,
    /// How much happens between two faults: in a hurry they are used up before anything is stored.
    pub(crate) calm: u32,
    pub(crate) is_quiet: bool,
    /// The point at which the seed wants a process to end or a connection to be cut.
    pub(crate) aim: Option<&'static str>,
    /// Nothing comes from the broker, and nothing reaches it.
    pub(crate) is_broker_away: bool,
    /// What went wrong so far, and how much the seed has drawn.
    pub(crate) faults: Vec<Fault>,
    pub(crate) faults_drawn: usize,
    pub(crate) rows_drawn: usize,
    limits: Limits,
    triage: Arc<Triage>,
    epochs: u64,
    pub(crate) assignments: u64,
}

impl World {
    pub(crate) fn new(setup: &Setup, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let logs = setup.logs(&mut chance);
        let records: usize = logs.iter().map(Vec::len).sum();
        let store = SharedStore::new(Store::new(Judge::new(&logs)));
        let partition = |log: Vec<Entry>| Partition {
            written: 0,
            log,
            owner: None,
            before: None,
            committed: 0,
        };
        let weights = std::array::from_fn(|_| chance.pick(&[1, 2, 4, 10]));
        let faults_left = if setup.faults == Faults::None {
            0
        } else {
            chance.pick(&[2, 6, 15])
        };
        let calm = chance.pick(&[1, 5, 20, 60]);
        let mut world = Self {
            limits: setup.limits(&mut chance),
            triage: Arc::new(setup.triage()),
            setup: setup.clone(),
            coverage: Coverage::default(),
            trace: None,
            store,
            partitions: logs.into_iter().map(partition).collect(),
            members: Vec::new(),
            requests: Vec::new(),
            weights,
            faults_left,
            calm,
            is_quiet: false,
            aim: setup.aim(&mut chance),
            chance,
            is_broker_away: false,
            faults: Vec::new(),
            faults_drawn: 0,
            rows_drawn: records + setup.left_out.rows.len(),
            epochs: 0,
            assignments: 0,
        };
        world.chance.vary(setup.left_out.variant);
        for _ in 0..setup.members {
            let member = world.new_member();
            world.members.push(member);
        }
        world
    }

    fn new_member(&mut self) -> Member {
        self.epochs += 1;
        let intake = Intake::new(self.limits, self.setup.safeguards());
        Member::new(self.epochs, intake, self.store.clone(), Arc::clone(&self.triage))
    }

    pub(crate) fn log(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = line(self);
            self.trace.iter_mut().for_each(|trace| trace.push(line.clone()));
        }
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.store.lock().now += 1;
        match action {
            Action::Serve(x) => self.serve(x),
            Action::Poll(m, id) => {
                if let Some(ended) = self.members[m].poll(id) {
                    self.ended(m, id, ended);
                }
            }
            Action::GiveUp(m, id) => {
                if self
                    .store
                    .lock()
                    .has_unheard_commit(self.members[m].attempts[&id].transaction)
                {
                    self.coverage.hit("fault: slow ack");
                }
                self.members[m].abandon(id);
                let ended = Ended {
                    verdict: Verdict::Unclear("given up".to_owned()),
                    tally: Tally::default(),
                    repeated: 0,
                };
                self.ended(m, id, ended);
            }
            Action::RetryDue(m, at) => {
                let id = self.members[m].pauses.remove(at);
                self.members[m].note(Fact::RetryDue(id));
            }
            Action::Arrive(m) => {
                let fact = self.members[m]
                    .arrivals
                    .pop_front()
                    .expect("only offered where there is one");
                self.members[m].note(fact);
            }
            Action::Write(p) => self.partitions[p].written += 1,
            Action::Fetch(m) => self.fetch(m),
            Action::SendOffset(m, p) => self.send_offset(m, p),
            Action::TakeOffset(at) => {
                let request = self.requests.remove(at);
                self.take_offset(request);
            }
            Action::LoseOffset(at) => {
                self.requests.remove(at);
                self.coverage.hit("fault: lost ack");
            }
            Action::Assign(p, m) => self.assign(p, m),
            Action::Revoke(m) => self.revoke(m),
            Action::FinishRevoke(m) => self.give_back(m),
            Action::AbandonRevoke(m) => {
                let partitions = self.members[m]
                    .revoking
                    .as_ref()
                    .expect("only offered then")
                    .partitions
                    .clone();
                self.give_back(m);
                self.members[m].arrivals.push_back(Fact::Lost(partitions));
            }
            Action::LoseSession(m) => {
                self.members[m].is_valid = false;
                self.disown(m);
            }
            Action::Notice(m) => {
                self.epochs += 1;
                let member = &mut self.members[m];
                let lost: Vec<i32> = std::mem::take(&mut member.held).into_keys().collect();
                member.arrivals.push_back(Fact::Lost(lost));
                (member.is_valid, member.epoch) = (true, self.epochs);
            }
            Action::Crash(m) => {
                let points = self.crash_points(m);
                self.aim = self.aim.filter(|aim| !points.contains(aim));
                self.coverage.hit_all(points);
                self.members[m].die();
            }
            Action::Restart(m) => {
                self.disown(m);
                self.members[m] = self.new_member();
            }
            Action::Drain(m) => {
                self.members[m].is_draining = true;
                self.members[m].note(Fact::Draining);
            }
            Action::Close(m) => self.close(m),
            Action::Cut(x) => {
                let mut store = self.store.lock();
                let point = points::cut_point(&store, x);
                self.aim = self.aim.filter(|aim| point != Some(*aim));
                self.coverage.hit_all(point);
                store.cut(x);
            }
            Action::EndSession(x) => {
                let trouble = if self.chance.odds(1, 2) {
                    Trouble::Unclear
                } else {
                    Trouble::Unavailable
                };
                self.store.lock().terminate(x, trouble);
            }
            Action::LockTimeout(x) => self.store.lock().time_out(x),
            Action::DatabaseCrash => {
                let mut store = self.store.lock();
                let open: Vec<usize> = store.open_ones().map(|(x, _)| x).collect();
                open.into_iter().for_each(|x| store.terminate(x, Trouble::Unclear));
            }
            Action::LoseDatabase => self.store.lock().is_away = true,
            Action::FindDatabase => self.store.lock().is_away = false,
            Action::LoseBroker => self.is_broker_away = true,
            Action::FindBroker => self.is_broker_away = false,
            Action::JumpClock(m) => {
                let by = TimeDelta::seconds(self.chance.pick(&[-40_000_000, -3_600, -1, 1, 3_600, 40_000_000]));
                self.members[m].clock += by;
            }
            Action::Forget => {
                let mut store = self.store.lock();
                let claims = store.forgettable();
                store.forget(claims[self.chance.below(claims.len())]);
            }
        }
    }

    fn serve(&mut self, x: usize) {
        let mut store = self.store.lock();
        let is_commit = matches!(store.transactions[x].call, Some(Call::Commit));
        let was_orphan = store.transactions[x].is_orphan;
        store.serve(x);
        if !is_commit {
            return;
        }
        if was_orphan {
            self.coverage.hit("commit after its client left");
        }
        let attempts = self
            .members
            .iter()
            .enumerate()
            .flat_map(|(m, member)| member.attempts.values().map(move |a| (m, a)));
        let mut ours = attempts.filter(|(_, attempt)| attempt.transaction == x);
        let is_elsewhere = |m: usize, p: &i32| self.partitions[*p as usize].owner.is_none_or(|(owner, _)| owner != m);
        if ours.any(|(m, attempt)| attempt.partitions.iter().any(|p| is_elsewhere(m, p))) {
            self.coverage.hit("fault: zombie owner");
        }
    }

    fn ended(&mut self, m: usize, id: BatchId, ended: Ended) {
        let Ended {
            verdict,
            tally,
            repeated,
        } = ended;
        self.log(|_| format!("  member {m} {id:?}: {verdict:?}"));
        self.coverage.hit(match &verdict {
            Verdict::Committed => "committed",
            Verdict::TakeOver(_) => "take over",
            Verdict::DataError(_) => "data error",
            Verdict::ClaimGone => "conflict: claim gone",
            Verdict::LockTimeout => "conflict: lock timeout",
            Verdict::Unavailable(_) => "unavailable",
            Verdict::Unclear(_) => "unclear",
        });
        if verdict == Verdict::Committed {
            let inside = repeated.min(tally.duplicates);
            self.coverage.add("conflict: duplicate inside a batch", inside as u64);
            let across = (tally.duplicates - inside) as u64;
            self.coverage.add("conflict: duplicate of an earlier commit", across);
            self.coverage.add("fault: poison key", tally.dead_letters.len() as u64);
        }
        self.coverage
            .add("conflict: duplicate with another body", tally.mismatches.len() as u64);
        self.coverage.add("decisions", tally.decisions.len() as u64);
        self.coverage.add("dead letters", tally.dead_letters.len() as u64);
        self.members[m].note(Fact::Attempted { batch: id, verdict });
    }
}
