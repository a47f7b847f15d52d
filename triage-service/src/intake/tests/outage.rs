//! The loop while the store is away: it comes back to it for ever, and never in step with others.

use std::future::{Future, ready};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shared::health::Health;
use shared::retry::Backoff;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

use super::super::inbox::{Inbox, InboxError};
use super::super::run::{Arrival, PART_POSTGRES, PART_PROGRESS, Pace, Partitions, Runner};
use super::super::safeguards::Safeguards;
use super::super::{Assignment, Intake};
use super::store::Open;
use super::{LIMITS, events, triage};

/// A store that is away, and when it was asked.
#[derive(Default)]
struct Away {
    asked: Mutex<Vec<Instant>>,
}

impl Inbox for Away {
    type Transaction = Open;

    fn begin(&self) -> impl Future<Output = Result<Open, InboxError>> + Send {
        self.asked.lock().expect("no holder panics").push(Instant::now());
        ready(Err(InboxError::Unavailable(anyhow::anyhow!("away"))))
    }
}

/// A consumer that is steered in vain.
struct Still;

impl Partitions for Still {
    fn committed(&self, _: Duration) {
        panic!("nothing was committed");
    }

    fn pause(&self, _: &[i32]) {}

    fn resume(&self, _: &[i32]) {}

    fn store(&self, partition: i32, _: Assignment, offset: i64) {
        panic!("offset {offset} of partition {partition} was stored, and nothing was committed");
    }
}

/// A store that hangs.
struct Hung;

impl Inbox for Hung {
    type Transaction = Open;

    fn begin(&self) -> impl Future<Output = Result<Open, InboxError>> + Send {
        std::future::pending()
    }
}

#[tokio::test]
async fn with_enough_at_hand_what_comes_waits_for_transactions_and_not_for_ever() {
    // given: a transaction that hangs, and more than a quarter of the buffers in use
    let (tell, arrivals) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let running = tokio::spawn(runner(Hung).run(arrivals, stop.clone()));
    let tell = async |arrival| tell.send(arrival).await.expect("it runs");
    tell(Arrival::Assigned(vec![(0, Assignment(1))])).await;
    let quarter = LIMITS.buffer_records as i64 / 4;
    tell(Arrival::Records(events(0, 0..1))).await;
    tell(Arrival::Records(events(0, 1..quarter + 2))).await;
    // when
    let began = Instant::now();
    for offset in quarter + 2..quarter + 7 {
        tell(Arrival::Records(events(0, offset..offset + 1))).await;
    }
    // then: one lies in the channel, the others were taken one after the other
    let waited = began.elapsed();
    assert!(waited >= Duration::from_millis(300), "{waited:?}");
    running.abort();
}

/// The loop on a store, with pauses of a tenth of a second at most.
fn runner<I: Inbox>(inbox: I) -> Runner<I, Still> {
    Runner {
        intake: Intake::new(LIMITS, Safeguards::default()),
        inbox: Arc::new(inbox),
        partitions: Still,
        triage: Arc::new(triage(Safeguards::default())),
        pace: Pace {
            retry: Backoff::new(LONGEST, LONGEST),
            attempt_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            stall: Duration::from_secs(60),
        },
        metrics: Metrics::register(&prometheus::Registry::new()).expect("a registry of our own"),
        health: Health::new(&[PART_POSTGRES, PART_PROGRESS]),
        ring: Box::new(|| panic!("nothing was committed")),
    }
}

const LONGEST: Duration = Duration::from_millis(100);

#[tokio::test]
async fn pauses_of_an_outage_differ() {
    // given
    let runner = runner(Away::default());
    let inbox = Arc::clone(&runner.inbox);
    let (tell, arrivals) = mpsc::channel(4);
    let stop = CancellationToken::new();
    let running = tokio::spawn(runner.run(arrivals, stop.clone()));

    // when: a batch is tried again and again
    tell.send(Arrival::Assigned(vec![(0, Assignment(1))]))
        .await
        .expect("it runs");
    tell.send(Arrival::Records(events(0, 0..1))).await.expect("it runs");
    while inbox.asked.lock().expect("no holder panics").len() < 30 {
        tokio::time::sleep(LONGEST).await;
    }
    stop.cancel();
    running.await.expect("no panic").expect("it drains");

    // then: of so many pauses that are drawn, some are short; a busy machine makes none of them shorter
    let asked = inbox.asked.lock().expect("no holder panics");
    let pauses: Vec<Duration> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let is_any_short = pauses.iter().any(|pause| *pause < LONGEST * 2 / 3);
    assert!(is_any_short, "instances would return together: {pauses:?}");
}
