//! What a run is made of, drawn from its seed.

use std::sync::LazyLock;
use std::time::Duration;

use crate::chance::Chance;
use crate::shrink::LeftOut;
use outbox_publisher::domain::event::OutboxEvent;
use outbox_publisher::domain::retry::RetryPolicy;
use outbox_publisher::domain::rules::{Rule, Rules};
use outbox_publisher::domain::topic::TopicTimes;
use outbox_publisher::relay::{Halt, RelayConfig};
use shared::hash;
use uuid::Uuid;

use crate::relay::points::WANTED;
use crate::relay::rows::{Poison, Transaction};

/// A rule of the store or of the writers that a test may switch off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreRule {
    /// A read compares the epoch.
    FencedRead,
    /// A look compares the epoch.
    FencedLook,
    /// Retry, park and fail change only PENDING rows.
    OnlyPending,
    /// Retry, park and fail compare the epoch.
    FenceChange,
    /// A leaf is scanned in the transaction that drops it.
    DropWithScan,
    /// A sample becomes a mark by a transaction of our own.
    OwnXid,
    /// That transaction draws its xid after the sample.
    SampleBeforeXid,
    /// Writers draw their xid before an id.
    XidBeforeId,
    /// A settle names the event id.
    SettleByEventId,
    /// A settled side row returns to lane 0.
    SettleToMainLane,
    /// The sample of a lock look-up is taken before it.
    SampleBeforeLocks,
    /// A low id known in another life of the server is not stored.
    RenewInSameLife,
}

/// Which rule is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Off {
    Nothing,
    Relay(Rule),
    Store(StoreRule),
}

/// How much goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Faults {
    /// Nothing: and then no duplicate may appear either.
    None,
    /// Processes, network, leases, destinations.
    Processes,
    /// Crashes of the database as well.
    Database,
}

/// The frame of a run; the rest is drawn from its seed.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) faults: Faults,
    pub(crate) off: Off,
    pub(crate) publishers: usize,
    pub(crate) buckets: usize,
    /// Keys that writers use; few keys make more promised pairs.
    pub(crate) keys: usize,
    /// One row in so many is poisoned.
    pub(crate) poison: usize,
    /// One commit in so many is asynchronous, where databases crash.
    pub(crate) asynchronous: usize,
    /// Weight of a leap of time past a second.
    pub(crate) leaps: u32,
    /// One lease in so many is found expired although its owner lives.
    pub(crate) take_over: usize,
    /// Only processes, statements and destinations fail, and often: what needs several of those at once is met sooner
    /// where outages, clocks and aimed crashes do not come between.
    pub(crate) is_focused: bool,
    /// What does not happen although the seed draws it.
    pub(crate) left_out: LeftOut,
}

impl Setup {
    pub(crate) fn new(faults: Faults) -> Self {
        Self {
            faults,
            off: Off::Nothing,
            publishers: 3,
            buckets: 2,
            keys: 2,
            poison: 3,
            asynchronous: 4,
            leaps: 1,
            take_over: 6,
            is_focused: false,
            left_out: LeftOut::default(),
        }
    }

    /// A frame that differs from seed to seed.
    pub(crate) fn drawn(faults: Faults, seed: u64) -> Self {
        let mut chance = Chance::new(!seed);
        Self {
            publishers: chance.pick(&[1, 2, 2, 3]),
            buckets: chance.pick(&[1, 1, 2, 3]),
            keys: chance.pick(&[1, 2, 2, 3]),
            poison: chance.pick(&[2, 2, 3, 8]),
            asynchronous: chance.pick(&[1, 4]),
            leaps: chance.pick(&[1, 1, 4]),
            take_over: chance.pick(&[2, 6, 30]),
            ..Self::new(faults)
        }
    }

    pub(crate) fn rules(&self) -> Rules {
        match self.off {
            Off::Relay(rule) => Rules::without([rule]),
            Off::Nothing | Off::Store(_) => Rules::default(),
        }
    }

    pub(crate) fn store_rule(&self) -> Option<StoreRule> {
        match self.off {
            Off::Store(rule) => Some(rule),
            Off::Nothing | Off::Relay(_) => None,
        }
    }

    /// Writers in two or three chains.
    pub(crate) fn transactions(&self, chance: &mut Chance, is_small: bool) -> Vec<Transaction> {
        let count = if is_small {
            2 + chance.below(2)
        } else {
            2 + chance.below(5)
        };
        let slots = 2 + chance.below(2);
        let has_one_topic = chance.odds(1, 2);
        let plan = |chance: &mut Chance| {
            let rows = chance.pick(&[0, 1, 1, 2, 3]);
            let row = |chance: &mut Chance| {
                let topic = if has_one_topic { 0 } else { chance.below(2) };
                let key = if chance.odds(1, 12) {
                    None
                } else {
                    Some(chance.below(self.keys))
                };
                (topic, key)
            };
            (0..rows).map(|_| row(chance)).collect()
        };
        let transaction = |number: usize, chance: &mut Chance| {
            let mut transaction = Transaction::new(number % slots, plan(chance));
            transaction.draws_xid_early = chance.odds(1, 3);
            transaction.rolls_back = chance.odds(1, 8);
            transaction.is_asynchronous = self.faults == Faults::Database && chance.odds(1, self.asynchronous);
            transaction
        };
        let mut transactions: Vec<_> = (0..count).map(|number| transaction(number, chance)).collect();
        let mut rows = 0..;
        for transaction in &mut transactions {
            transaction
                .plan
                .retain(|_| rows.next().is_some_and(|row| !self.left_out.rows.contains(&row)));
        }
        transactions
    }

    /// The point at which a process is to end, so that each is met often enough.
    pub(crate) fn aim(&self, chance: &mut Chance) -> Option<&'static str> {
        let points: Vec<&str> = WANTED.into_iter().flatten().copied().collect();
        let crashes: Vec<&str> = points
            .into_iter()
            .filter(|point| point.starts_with("crash: "))
            .collect();
        let aim = chance.pick(&crashes);
        (self.faults > Faults::None && !self.is_focused).then_some(aim)
    }

    /// Bounds so tight that each is met, and times so short that each passes.
    pub(crate) fn relay_config(&self, chance: &mut Chance) -> RelayConfig {
        let ms = Duration::from_millis;
        RelayConfig {
            read_rows_max: chance.pick(&[1, 2, 3, 100]),
            read_rows_shared: chance.pick(&[1, 4, 100]),
            read_bytes_max: chance.pick(&[600, 1_500, 1 << 20, 1 << 20]),
            bucket_rows_max: chance.pick(&[1, 2, 3, 100, 100]),
            instance_bytes_max: chance.pick(&[1_500, 1 << 30, 1 << 30]),
            in_flight_max: chance.pick(&[1, 2, 4, 100]),
            poll_min: ms(1),
            poll_max: ms(8),
            settle_delay: chance.pick(&[ms(0), ms(2)]),
            settle_rows_max: chance.pick(&[1, 3, 100]),
            batch_bytes: 1,
            mark_pause: ms(1),
            look_interval: chance.pick(&[ms(20), ms(100)]),
            look_rows_max: chance.pick(&[1, 2, 100]),
            look_lanes_max: chance.pick(&[1, 2, 100]),
            renew_interval: chance.pick(&[ms(10), ms(100)]),
            lease: chance.pick(&[ms(600), ms(3_000)]),
            sweep_interval: chance.pick(&[ms(10), ms(10_000)]),
            halt_topics: Halt::On(vec![TOPICS[1].to_owned()]),
            retry: RetryPolicy {
                pause_initial: ms(2),
                pause_max: ms(20),
                attempts_max: 1 + chance.below(2) as u32,
            },
            topics: TopicTimes {
                pause_initial: ms(2),
                pause_max: ms(20),
                refresh: ms(500),
                window_idle: ms(300),
            },
        }
    }
}

/// On the second a FAILED row halts its key.
pub(crate) const TOPICS: [&str; 2] = ["continue", "halt"];

/// The broker forgets a producer that was idle for longer: a little more than `window_idle`.
pub(crate) const FORGET_AFTER: Duration = Duration::from_millis(350);

/// The hash slots of the simulation, and keys of each.
pub(crate) struct Places {
    pub(crate) buckets: [i16; 3],
    keys: [Vec<Vec<u8>>; 3],
}

pub(crate) static PLACES: LazyLock<Places> = LazyLock::new(|| {
    let buckets = [3, 17, 42];
    let of = |bucket: i16| {
        let keys = (0_u32..).map(|n| format!("key-{n}").into_bytes());
        keys.filter(|key| hash::bucket_of(Some(key), Uuid::nil()) == bucket)
            .take(3)
            .collect()
    };
    Places {
        buckets,
        keys: buckets.map(of),
    }
});

/// The row of an event; its id is not drawn yet.
pub(crate) fn outbox_event(
    number: usize,
    topic: usize,
    key: Option<usize>,
    buckets: usize,
    poison: Poison,
) -> OutboxEvent {
    let key = key.map(|key| PLACES.keys[key % buckets][key / buckets].clone());
    let is_ours = |id: &Uuid| key.is_some() || PLACES.buckets[..buckets].contains(&hash::bucket_of(None, *id));
    let ids = (0_u128..).map(|draw| Uuid::from_u128((number as u128 + 1) << 64 | draw));
    let event_id = ids
        .into_iter()
        .find(is_ours)
        .expect("one id in a few falls into a bucket of ours");
    OutboxEvent {
        id: 0,
        bucket: hash::bucket_of(key.as_deref(), event_id),
        lane_hash: hash::lane_hash(TOPICS[topic], key.as_deref(), event_id),
        event_id,
        attempts: 0,
        topic: TOPICS[topic].to_owned(),
        key,
        event_type: String::new(),
        content_type: String::new(),
        payload: None,
        headers: (poison == Poison::Unsendable).then(|| vec![1]),
        traceparent: None,
        tracestate: None,
    }
}

/// The number of an event, from its id.
pub(crate) fn number_of(event_id: Uuid) -> usize {
    (event_id.as_u128() >> 64) as usize - 1
}
