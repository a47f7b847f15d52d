//! A run: publishers, one store, one broker, and a clock that passes as it likes.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::chance::Chance;
use crate::coverage::Coverage;
use outbox_publisher::domain::topic::Lane;
use outbox_publisher::ports::SendError;
use outbox_publisher::relay::{Command, Relay, RelayConfig};

use crate::relay::broker::{Broker, Client, Fact, Place, Record};
use crate::relay::points;
use crate::relay::publisher::{Answer, Progress, Publisher, Question, Statement, brief};
use crate::relay::rows::{Poison, Status};
use crate::relay::setup::{Faults, PLACES, Setup, StoreRule, TOPICS, number_of};
use crate::relay::store::Store;
use crate::runs::Fault;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) chance: Chance,
    pub(crate) now: Duration,
    pub(crate) step: u64,
    pub(crate) config: RelayConfig,
    pub(crate) store: Store,
    pub(crate) broker: Broker,
    pub(crate) publishers: Vec<Publisher>,
    /// Statements whose sender no longer listens; the server may still carry them out.
    pub(crate) orphans: Vec<(u64, Statement)>,
    pub(crate) coverage: Coverage,
    pub(crate) trace: Option<Vec<String>>,
    /// Faults are over; what is promised has to come true.
    pub(crate) is_quiet: bool,
    /// Who has drained stays away.
    pub(crate) is_ending: bool,
    pub(crate) weights: [u32; 8],
    /// How much likelier all is that is not rare.
    pub(crate) calm: u32,
    pub(crate) pace: u64, // microseconds a step takes at most
    pub(crate) partitions: i32,
    pub(crate) instances: u64,
    pub(crate) take_overs: u32,
    pub(crate) crashes: u32,
    /// Instances that ended, or lost a connection, while the server may still have carried out a statement.
    pub(crate) unheard: BTreeSet<u64>,
    /// The point at which the seed wants a process to end.
    pub(crate) aim: Option<&'static str>,
    pub(crate) database_crashes: u32,
    /// When each publisher wants to be asked, by the clock of its host.
    pub(crate) wake_at: Vec<Duration>,
    /// How far the clock of the database's host is from where it began, against ours.
    pub(crate) database_ahead: Duration,
    /// The most that it ever was: a lease may have been renewed by that clock.
    pub(crate) database_ahead_most: Duration,
    /// What went wrong so far, and how much the seed has drawn.
    pub(crate) faults: Vec<Fault>,
    pub(crate) faults_drawn: usize,
    pub(crate) rows_drawn: usize,
    pub(crate) outages: u32,
    /// Since when nothing goes wrong any more.
    pub(crate) quiet_since: Duration,
}

/// What the clock of the database's host begins with, so that it can be put back.
const DATABASE_CLOCK: Duration = Duration::from_secs(1_000);

impl World {
    pub(crate) fn new(setup: &Setup, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let transactions = setup.transactions(&mut chance, seed.is_multiple_of(2));
        let planned: usize = transactions.iter().map(|transaction| transaction.plan.len()).sum();
        let config = setup.relay_config(&mut chance);
        let mut weights = [0; 8];
        for weight in &mut weights {
            *weight = chance.pick(&[1, 1, 2, 4, 10]);
        }
        let store = Store::new(setup.store_rule(), &PLACES.buckets[..setup.buckets], transactions);
        let mut world = Self {
            setup: setup.clone(),
            now: Duration::ZERO,
            step: 0,
            config,
            store,
            broker: Broker::default(),
            publishers: Vec::new(),
            orphans: Vec::new(),
            coverage: Coverage::default(),
            trace: None,
            is_quiet: false,
            is_ending: false,
            weights,
            calm: if setup.is_focused {
                1
            } else {
                chance.pick(&[1, 4, 16, 40])
            },
            pace: chance.pick(&[50, 300, 1_000, 4_000]),
            partitions: chance.pick(&[1, 1, 2]),
            instances: 0,
            take_overs: 0,
            crashes: 0,
            unheard: BTreeSet::new(),
            aim: setup.aim(&mut chance),
            database_crashes: 0,
            wake_at: vec![Duration::ZERO; setup.publishers],
            database_ahead: DATABASE_CLOCK,
            database_ahead_most: DATABASE_CLOCK,
            faults: Vec::new(),
            faults_drawn: 0,
            rows_drawn: planned + setup.left_out.rows.len(),
            outages: 0,
            quiet_since: Duration::ZERO,
            chance,
        };
        world.chance.vary(setup.left_out.variant);
        for _ in 0..setup.publishers {
            let publisher = world.new_publisher();
            world.publishers.push(publisher);
        }
        world
    }

    pub(crate) fn new_publisher(&mut self) -> Publisher {
        self.instances += 1;
        let relay = Relay::new(self.config.clone(), self.setup.rules(), self.instances);
        let clients = [self.broker.new_client(0), self.broker.new_client(0)];
        Publisher::new(self.instances, relay, clients)
    }

    pub(crate) fn note(&mut self, what: impl FnOnce(&Self) -> String) {
        let line = self.trace.is_some().then(|| what(self));
        if let (Some(line), Some(trace)) = (line, &mut self.trace) {
            trace.push(line);
        }
    }

    pub(crate) fn has_faults(&self) -> bool {
        self.setup.faults > Faults::None && !self.is_quiet
    }

    /// What a publisher takes the time to be: the clock of its host.
    pub(crate) fn clock(&self, p: usize) -> Duration {
        self.publishers[p].clock(self.now)
    }

    /// What the database takes the time to be.
    pub(crate) fn database_clock(&self) -> Duration {
        self.now + self.database_ahead
    }

    /// Lets a relay say what to do, and begins it.
    pub(crate) fn advance(&mut self, p: usize) {
        let now = self.clock(p);
        let commands = self.publishers[p].relay.advance(now);
        self.carry_out(p, commands);
        self.wake_at[p] = self.publishers[p].relay.next_at(now);
        if self.wake_at[p] > now + self.config.lease {
            self.store.fail(format!(
                "UNBOUNDED: publisher {p} waits from {now:?} to {:?}",
                self.wake_at[p]
            ));
        }
        let tally = self.publishers[p].relay.take_tally();
        if tally.swept > 0 {
            self.store
                .fail(format!("SWEPT: the sweep of publisher {p} found {} rows", tally.swept));
        }
        self.coverage.add("published", tally.published);
        self.coverage.add("parks", tally.parked);
        self.coverage.add("rebuilds", tally.rebuilds);
        self.coverage.add("buckets lost", tally.lost);
        self.coverage.add("failed", tally.failed.values().sum());
        self.coverage.add("fault: poison key", tally.attempts_failed);
        if self.publishers[p].is_leaving && self.publishers[p].relay.is_drained() {
            self.leave(p);
        }
    }

    fn leave(&mut self, p: usize) {
        let instance = self.publishers[p].instance;
        for lease in self
            .store
            .leases
            .values_mut()
            .filter(|lease| lease.owner == Some(instance))
        {
            lease.owner = None;
        }
        self.coverage.hit("drains");
        if !self.is_ending {
            self.coverage.hit("fault: rebalance");
        }
        let mut next = self.new_publisher();
        next.is_alive = !self.is_ending; // at the end nobody comes back
        self.publishers[p] = next;
        self.wake_at[p] = self.clock(p);
    }

    pub(crate) fn carry_out(&mut self, p: usize, commands: Vec<Command>) {
        for command in commands {
            self.note(|world| format!("      publisher {p}: {}", brief(&command, &world.store)));
            match self.publishers[p].ask(command) {
                None => {}
                Some(Command::Send {
                    lane,
                    generation,
                    token,
                    partition,
                    event,
                    ..
                }) => {
                    let topic = usize::from(event.topic == TOPICS[1]);
                    let record = Record {
                        token,
                        number: number_of(event.event_id),
                    };
                    self.hand_over(p, lane, generation, (topic, partition), record);
                }
                Some(Command::Rebuild(lane, generation)) => {
                    self.publishers[p].rebuilds[lane as usize] = Some(generation)
                }
                Some(Command::AskTopic(number, name)) => {
                    let _ = name;
                    self.publishers[p].topics_asked.push(number);
                }
                Some(other) => unreachable!("{other:?} is a statement"),
            }
        }
    }

    /// A client takes a row, or refuses it and is closed: nothing may overtake that row.
    fn hand_over(&mut self, p: usize, lane: Lane, generation: u64, place: Place, record: Record) {
        let publisher = &mut self.publishers[p];
        let facts = &mut publisher.facts[lane as usize];
        let client = &mut publisher.clients[lane as usize];
        if client.generation != generation || client.is_closed {
            facts.push_back(Fact::Report(generation, record.token, Err(SendError::Unknown)));
            return;
        }
        if let Poison::Client(left @ 1..) = &mut self.store.events[record.number].poison {
            if *left < 9 {
                *left -= 1;
            }
            client.is_closed = true;
            let refusal = SendError::NotSent("refused by the client".to_owned());
            facts.push_back(Fact::Report(generation, record.token, Err(refusal)));
            facts.push_back(Fact::Failed(generation));
            self.coverage.hit("fault: row refused by the client");
            return;
        }
        client.queues.entry(place).or_default().waiting.push_back(record);
    }

    /// The next phase of a statement.
    pub(crate) fn execute(&mut self, instance: u64, statement: &mut Statement) {
        let answer = match (&statement.question, &statement.progress) {
            (Question::Read(request), _) => Answer::Read(self.store.read(request)),
            (Question::Look(request), _) => Answer::Look(self.store.look(request, self.database_clock())),
            (Question::Settle(rows), _) => {
                let broker = &self.broker;
                Answer::Settle(self.store.settle(rows, |number| broker.is_on_log(number)))
            }
            (Question::Change(request), _) => Answer::Change(self.store.change(request, self.database_clock())),
            (Question::Control(_), _) => self.control(instance, &statement.question),
            (Question::Mark, Progress::Half(sample, xid, _)) => {
                let mut sample = *sample;
                if *xid > 0 {
                    sample = self.store.sequence;
                    self.store.complete(*xid);
                } else if self.store.holds(StoreRule::OwnXid) {
                    self.store.complete_own();
                }
                self.coverage.hit("marks");
                Answer::Mark(sample)
            }
            (Question::Mark, _) => {
                let xid = if self.store.holds(StoreRule::SampleBeforeXid) {
                    0
                } else {
                    self.store.draw_xid()
                };
                statement.progress = Progress::Half(self.store.sequence, xid, Vec::new());
                return;
            }
            (Question::Locks(xids), Progress::Half(sample, _, without)) => {
                let is_right = self.store.holds(StoreRule::SampleBeforeLocks);
                let without = if is_right {
                    self.store.without_lock(xids)
                } else {
                    without.clone()
                };
                let sample = if is_right { *sample } else { self.store.sequence };
                self.coverage.add("floors raised", without.len() as u64);
                Answer::Locks(sample, without)
            }
            (Question::Locks(xids), _) => {
                let without = self.store.without_lock(xids);
                statement.progress = Progress::Half(self.store.sequence, 0, without);
                return;
            }
        };
        self.coverage.hit_all(points::conflicts(&statement.question, &answer));
        statement.progress = Progress::Done(answer);
    }

    fn control(&mut self, instance: u64, question: &Question) -> Answer {
        let Question::Control(request) = question else {
            unreachable!("asked with a control")
        };
        let alive = self.publishers.iter().filter(|publisher| publisher.is_alive).count();
        let counted = (64 * alive / self.setup.buckets).max(1); // so that a fair share is a share of our few buckets
        let may_take_over = self.has_faults() && self.take_overs < 5;
        let odds = self.setup.take_over;
        let (publishers, chance, coverage) = (&self.publishers, &mut self.chance, &mut self.coverage);
        let mut take_overs = 0;
        let is_quiet = self.is_quiet;
        let is_free = |holder: u64, bucket: i16, epoch: i64| {
            let Some(holder) = publishers
                .iter()
                .find(|publisher| publisher.instance == holder && publisher.is_alive)
            else {
                return true;
            };
            let is_asking = holder
                .statements
                .iter()
                .any(|statement| matches!(statement.question, Question::Control(_)));
            if is_quiet && !is_asking && holder.relay.epoch_of(bucket) != Some(epoch) {
                return true; // nobody works for it: its lease would run out in a while
            }
            let is_taken = may_take_over && chance.odds(1, odds);
            take_overs += u32::from(is_taken);
            is_taken
        };
        let clock = if self.setup.faults == Faults::None {
            Duration::ZERO
        } else {
            self.now + self.database_ahead
        };
        let before = self.store.leases.clone();
        let answer = self.store.control(instance, request, counted, clock, is_free);
        self.take_overs += take_overs;
        coverage.add("take-overs", take_overs.into());
        for taken in &answer.acquired {
            if let Some(holder) = before[&taken.bucket].owner.filter(|holder| *holder != instance) {
                let states = self.take_over_states(holder, taken.bucket);
                self.coverage.hit_all(states);
            }
        }
        Answer::Control(answer)
    }

    /// Something of a client has an answer.
    pub(crate) fn find_client(&mut self, id: u64) -> Option<(usize, usize)> {
        let is_it = |publisher: &Publisher| publisher.clients.iter().position(|client: &Client| client.id == id);
        self.publishers
            .iter()
            .enumerate()
            .find_map(|(p, publisher)| Some((p, is_it(publisher)?)))
    }

    /// All rows that count are published, and nobody writes.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.store.transactions.iter().all(|transaction| !transaction.is_open())
            && self.store.open_rows(Status::Pending).next().is_none()
            && self.store.open_rows(Status::Failed).next().is_none()
    }
}
