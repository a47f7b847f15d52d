//! The loop while a transaction runs: what comes meanwhile shares the next one.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shared::health::Health;
use shared::retry::Backoff;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

use super::super::inbox::{Inbox, InboxError};
use super::super::run::{Arrival, GATHERED_FOR, PART_POSTGRES, PART_PROGRESS, Pace, Partitions, Runner};
use super::super::safeguards::Safeguards;
use super::super::{Assignment, Intake};
use super::store::{Open, Store};
use super::{LIMITS, events, triage};

const LONG: Duration = Duration::from_secs(60);

/// A store whose first transaction hangs, and when each began.
#[derive(Default)]
struct HangsOnce {
    store: Store,
    begun: Mutex<Vec<Instant>>,
}

impl HangsOnce {
    fn begun(&self) -> Vec<Instant> {
        self.begun.lock().expect("no holder panics").clone()
    }
}

impl Inbox for HangsOnce {
    type Transaction = Open;

    async fn begin(&self) -> Result<Open, InboxError> {
        self.begun.lock().expect("no holder panics").push(Instant::now());
        if self.begun().len() == 1 {
            std::future::pending::<()>().await;
        }
        self.store.begin().await
    }
}

/// A consumer that does what it is told.
struct Willing;

impl Partitions for Willing {
    fn pause(&self, _: &[i32]) {}

    fn resume(&self, _: &[i32]) {}

    fn store(&self, _: i32, _: Assignment, _: i64) {}
}

fn runner(inbox: &Arc<HangsOnce>) -> Runner<HangsOnce, Willing> {
    Runner {
        intake: Intake::new(LIMITS, Safeguards::default()),
        inbox: Arc::clone(inbox),
        partitions: Willing,
        triage: Arc::new(triage(Safeguards::default())),
        pace: Pace {
            retry: Backoff::new(LONG, LONG),
            attempt_timeout: LONG,
            drain_timeout: LONG,
            stall: LONG,
        },
        metrics: Metrics::register(&prometheus::Registry::new()).expect("a registry of our own"),
        health: Health::new(&[PART_POSTGRES, PART_PROGRESS]),
        ring: Box::new(|| {}),
    }
}

#[tokio::test]
async fn what_comes_while_a_transaction_runs_shares_the_next_and_waits_for_a_moment_only() {
    // given: a transaction that hangs
    let inbox = Arc::new(HangsOnce::default());
    let (tell, arrivals) = mpsc::channel(8);
    let running = tokio::spawn(runner(&inbox).run(arrivals, CancellationToken::new()));
    let tell = |arrival| tell.try_send(arrival).expect("there is room");
    let partitions = (0..4).map(|partition| (partition, Assignment(1)));
    tell(Arrival::Assigned(partitions.collect()));
    let began = Instant::now();
    tell(Arrival::Records(events(0, 0..1)));
    while inbox.begun().is_empty() {
        tokio::task::yield_now().await;
    }

    // when: one record after the other, of other partitions
    for partition in 1..4 {
        tell(Arrival::Records(events(partition, 0..1)));
    }
    while inbox.store.rows().decisions.len() < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(began.elapsed() < LONG / 2, "they wait for the one that hangs");
    }
    running.abort();

    // then
    let begun = inbox.begun();
    assert_eq!(begun.len(), 2, "three records, one transaction");
    assert!(begun[1] - began >= GATHERED_FOR, "more might have come");
}
