//! The relay: claims buckets, reads their rows in order, publishes and settles them.
//!
//! It is a state machine without IO: facts go in by the methods that are named after them, and
//! [`Relay::advance`] says what to do next. The driver carries that out against Postgres and Kafka, the
//! simulation against a store and a broker that lie like the real ones.
//!
//! | file | what it decides |
//! |---|---|
//! | `reading` | from where each bucket is read, and what a read means |
//! | `sending` | which rows go to which producer, and what a delivery report means |
//! | `settling` | marking what is on its topic |
//! | `changing` | retry, park and fail |
//! | `side` | blocked keys: looks, parking, sending side rows in order |
//! | `leasing` | which buckets are held, how long, what is given back |

mod changing;
mod config;
mod flights;
mod leasing;
mod reading;
mod sending;
mod settling;
mod shares;
mod side;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use crate::domain::event::OutboxEvent;
use crate::domain::marks::{Basis, Marks, Xid};
use crate::domain::rules::Rules;
use crate::domain::tenancy::Tenancy;
use crate::domain::topic::{Lane, Topic};
use crate::ports::{ChangeRequest, ControlRequest, LookRequest, ReadRequest, SettleRow};
use changing::{Changes, Changing};
pub use config::{Halt, RelayConfig};
use flights::Flights;
use settling::Settle;

/// Names an operation under way, so that its answer finds it, or is dropped when it is no longer wanted.
pub type Op = u64;

/// What to do next.
#[derive(Debug)]
pub enum Command {
    /// Read lane 0; answer with [`Relay::read_done`].
    Read(Op, ReadRequest),
    /// Look at the side lane; answer with [`Relay::look_done`].
    Look(Op, LookRequest),
    /// Sample the sequence, then commit a transaction that draws its xid after it; [`Relay::mark_done`].
    Mark(Op),
    /// Mark rows PUBLISHED; [`Relay::settle_done`].
    Settle(Op, Vec<SettleRow>),
    /// Retry, park or fail; [`Relay::change_done`].
    Change(Op, ChangeRequest),
    /// Renew, release, acquire, count; [`Relay::control_done`].
    Control(Op, ControlRequest),
    /// Sample the sequence, then see which of these transactions lock the outbox; [`Relay::locks_done`].
    Locks(Op, Vec<Xid>),
    /// Hand a row to a producer; the report comes through [`Relay::reported`].
    Send {
        /// Which producer.
        lane: Lane,
        /// Which life of it.
        generation: u64,
        /// Comes back with the report.
        token: usize,
        /// Which partition of its topic.
        partition: i32,
        /// The fencing token, for people.
        epoch: i64,
        /// The row.
        event: Arc<OutboxEvent>,
    },
    /// Purge and flush a producer, report what it held, build another; then [`Relay::producer_rebuilt`].
    Rebuild(Lane, u64),
    /// Ask the broker about a topic; [`Relay::topic_known`].
    AskTopic(usize, String),
}

/// What has been done since the last call, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows known to be on their topic.
    pub published: u64,
    /// Failures that were a row's own.
    pub attempts_failed: u64,
    /// Rows set aside, by cause.
    pub failed: BTreeMap<&'static str, u64>,
    /// Rows moved to the side lane.
    pub parked: u64,
    /// Producers rebuilt.
    pub rebuilds: u64,
    /// Rows that only the sweep found: must stay 0.
    pub swept: u64,
    /// Buckets taken, and lost to another owner.
    pub taken: u64,
    /// Buckets that another owner had taken when we looked.
    pub lost: u64,
    /// Rows marked PUBLISHED.
    pub settled: u64,
}

#[derive(Debug)]
struct Producer {
    generation: u64,
    is_ready: bool,
}

#[derive(Debug)]
struct Reading {
    op: Op,
    request: ReadRequest,
    basis: Basis,
    /// In a sweep: from where each bucket would have been read without it.
    usual: BTreeMap<i16, i64>,
}

#[derive(Debug)]
struct Looking {
    op: Op,
    request: LookRequest,
}

/// See the module.
#[derive(Debug)]
pub struct Relay {
    config: RelayConfig,
    rules: Rules,
    random: SmallRng,
    op: Op,
    marks: Marks,
    tenancies: BTreeMap<i16, Tenancy>,
    topics: Vec<Topic>,
    topic_numbers: HashMap<String, usize>,
    flights: Flights,
    producers: [Producer; 2],
    // What is under way.
    reading: Option<Reading>,
    looking: Option<Looking>,
    marking: Option<Op>,
    settling: Option<Settle>,
    changing: Option<Changing>,
    controlling: Option<leasing::Controlling>,
    locking: Option<Op>,
    // What waits.
    acked: Vec<settling::Acked>,
    acked_since: Duration,
    changes: Changes,
    look_after: BTreeMap<i16, i32>,
    // When.
    next_read: Duration,
    poll_pause: Duration,
    last_read: Duration,
    read_not_before: Duration,
    next_look: Duration,
    next_mark: Duration,
    next_control: Duration,
    next_locks: Duration,
    next_sweep: Duration,
    next_settle: Duration,
    next_change: Duration,
    next_side: Duration,
    // What is known.
    sample: i64,
    life: Option<Uuid>,
    instances: usize,
    lease_until: Duration,
    settle_before_taking: bool,
    is_draining: bool,
    is_woken: bool,
    /// The rows in hand leave little room for a read.
    is_crowded: bool,
    tally: Tally,
    turn: i16,
}

impl Relay {
    /// A relay that holds nothing yet. `seed` draws its jitter.
    pub fn new(config: RelayConfig, rules: Rules, seed: u64) -> Self {
        let producer = || Producer {
            generation: 0,
            is_ready: true,
        };
        Self {
            poll_pause: config.poll_min,
            next_sweep: config.sweep_interval,
            config,
            rules,
            random: SmallRng::seed_from_u64(seed),
            op: 0,
            marks: Marks::default(),
            tenancies: BTreeMap::new(),
            topics: Vec::new(),
            topic_numbers: HashMap::new(),
            flights: Flights::default(),
            producers: [producer(), producer()],
            reading: None,
            looking: None,
            marking: None,
            settling: None,
            changing: None,
            controlling: None,
            locking: None,
            acked: Vec::new(),
            acked_since: Duration::ZERO,
            changes: Changes::default(),
            look_after: BTreeMap::new(),
            next_read: Duration::ZERO,
            last_read: Duration::ZERO,
            read_not_before: Duration::ZERO,
            next_look: Duration::ZERO,
            next_mark: Duration::ZERO,
            next_control: Duration::ZERO,
            next_locks: Duration::ZERO,
            next_settle: Duration::ZERO,
            next_change: Duration::ZERO,
            next_side: Duration::ZERO,
            sample: 0,
            life: None,
            instances: 0,
            lease_until: Duration::ZERO,
            settle_before_taking: false,
            is_draining: false,
            is_woken: false,
            is_crowded: false,
            tally: Tally::default(),
            turn: 0,
        }
    }

    /// Says what to do next. Call it after each fact, and at [`Relay::next_at`].
    pub fn advance(&mut self, now: Duration) -> Vec<Command> {
        let mut commands = Vec::new();
        self.control(now, &mut commands);
        self.ask_topics(now, &mut commands);
        self.send(now, &mut commands);
        self.send_side(now, &mut commands);
        self.park(now);
        self.change(now, &mut commands);
        self.settle(now, &mut commands);
        self.read(now, &mut commands);
        self.look(now, &mut commands);
        self.mark(now, &mut commands);
        self.look_at_locks(now, &mut commands);
        commands
    }

    /// When [`Relay::advance`] has something to do although no fact came in.
    pub fn next_at(&self, now: Duration) -> Duration {
        let mut at = now + self.config.lease; // a bound, should nothing wait
        let mut due = |is_waiting: bool, next: Duration| {
            if is_waiting {
                at = at.min(next);
            }
        };
        let holds_any = !self.tenancies.is_empty();
        due(self.controlling.is_none(), self.next_control);
        due(self.looking.is_none() && holds_any, self.next_look);
        due(self.reading.is_none() && holds_any, self.next_read);
        due(
            self.tenancies.values().any(|tenancy| !tenancy.blocked.is_empty()),
            self.next_side,
        );
        let settle_at = self.next_settle.max(self.acked_since + self.config.settle_delay);
        due(self.settling.is_none() && !self.acked.is_empty(), settle_at);
        due(self.changing.is_none() && !self.changes.is_empty(), self.next_change);
        due(self.needs_mark(), self.next_mark);
        for topic in &self.topics {
            if let Some(until) = topic.paused_until().filter(|until| *until > now) {
                at = at.min(until);
            }
        }
        at.max(now + Duration::from_micros(200)) // a state that is not yet understood must not spin
    }

    /// Something new was committed: read at once.
    pub fn wake(&mut self, now: Duration) {
        self.poll_pause = self.config.poll_min;
        self.next_read = self.next_read.min(self.read_not_before.max(now));
        self.is_woken = true; // a read under way may have begun before that commit
    }

    /// Takes nothing new, gives back each bucket as soon as nothing of it is in flight.
    pub fn drain(&mut self, now: Duration) {
        self.is_draining = true;
        self.next_control = now;
        for tenancy in self.tenancies.values_mut() {
            tenancy.is_draining = true;
        }
    }

    /// Whether a drain is complete: no bucket is held and nothing acknowledged is unmarked.
    pub fn is_drained(&self) -> bool {
        self.is_draining
            && self.tenancies.is_empty()
            && self.acked.is_empty()
            && self.settling.is_none()
            && self.controlling.is_none()
    }

    /// A connection to the database was lost, or the server has recovered from a crash: what memory
    /// knows may be more than what the server kept, so every bucket begins anew.
    ///
    /// What is acknowledged stays to be settled, and is settled before a bucket is taken again.
    pub fn store_lost(&mut self, now: Duration) {
        self.reading = None;
        self.looking = None;
        self.marking = None;
        self.controlling = None;
        self.locking = None;
        if let Some(settle) = self.settling.take() {
            self.unsettle(settle, now);
        }
        if let Some(changing) = self.changing.take() {
            self.change_unknown(changing);
        }
        self.next_control = now;
        self.next_read = now;
        if self.rules.hold(crate::domain::rules::Rule::NewTenancyAfterLoss) {
            self.abandon_all();
        }
    }

    /// What was done since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// The topics that rows have named.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().map(|topic| topic.name.as_str())
    }

    /// The topics that nothing gets through to, with the reason and since when, as far as rows in hand
    /// wait for them: what another instance has taken over, or an operator has removed, proves nothing.
    pub fn troubled_topics(&self) -> impl Iterator<Item = (&str, &crate::domain::topic::Paused)> {
        self.topics
            .iter()
            .filter_map(|topic| Some((topic.name.as_str(), topic.trouble()?)))
            .filter(|(name, _)| self.tenancies.values().any(|tenancy| tenancy.waits_for(name)))
    }

    /// How many buckets are held.
    pub fn buckets_held(&self) -> usize {
        self.tenancies.len()
    }

    /// How many instances were alive at the last count.
    pub fn instances(&self) -> usize {
        self.instances
    }

    /// How many keys are blocked in the buckets held.
    pub fn keys_blocked(&self) -> usize {
        self.tenancies.values().map(|tenancy| tenancy.blocked.len()).sum()
    }

    /// Rows in the producers' hands.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Rows that are acknowledged and wait to be marked.
    pub fn unsettled(&self) -> usize {
        self.acked.len()
    }

    /// For how long the oldest transaction has run that may still insert low ids.
    pub fn oldest_writer(&self, now: Duration) -> Duration {
        self.marks.oldest_running(now)
    }

    /// The epoch under which a bucket is held.
    pub fn epoch_of(&self, bucket: i16) -> Option<i64> {
        self.tenancies.get(&bucket).map(|tenancy| tenancy.epoch)
    }

    fn next_op(&mut self) -> Op {
        self.op += 1;
        self.op
    }

    fn jitter(&mut self) -> f64 {
        self.random.random_range(0.0..=1.0)
    }

    fn topic_number(&mut self, name: &str) -> usize {
        if let Some(number) = self.topic_numbers.get(name) {
            return *number;
        }
        let number = self.topics.len();
        self.topics.push(Topic::new(name));
        self.topic_numbers.insert(name.to_owned(), number);
        number
    }

    /// The tenancy under which something was begun, if it still lasts.
    fn tenancy(&mut self, bucket: i16, epoch: i64) -> Option<&mut Tenancy> {
        self.tenancies.get_mut(&bucket).filter(|tenancy| tenancy.epoch == epoch)
    }

    fn dirty_all(&mut self) {
        for tenancy in self.tenancies.values_mut() {
            tenancy.is_dirty = true;
        }
    }
}
