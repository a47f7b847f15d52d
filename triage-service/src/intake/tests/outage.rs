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
    fn pause(&self, _: &[i32]) {}

    fn resume(&self, _: &[i32]) {}

    fn store(&self, partition: i32, _: Assignment, offset: i64) {
        panic!("offset {offset} of partition {partition} was stored, and nothing was committed");
    }
}

#[tokio::test]
async fn pauses_of_an_outage_differ() {
    // given: pauses of at most a tenth of a second
    const LONGEST: Duration = Duration::from_millis(100);
    let inbox = Arc::new(Away::default());
    let runner = Runner {
        intake: Intake::new(LIMITS, Safeguards::default()),
        inbox: Arc::clone(&inbox),
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
    };
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
