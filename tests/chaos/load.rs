//! What goes on while things break: the stream of the demo, and a library user who writes to the outbox itself.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::feed::{Feeder, Pace, Writer};
use harness::input::{Inputs, Kind};
use harness::{Database, Verdict};

use shared::clock;
use shared::outbox::{self, NewEvent};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::scene::Scene;

/// Events of one transaction of the library user.
const EVENTS: u64 = 5;
/// Its keys.
const KEYS: u64 = 20;
/// Pause of the library user after a failure, as in front of a database that restarts.
const PAUSE: Duration = Duration::from_millis(200);

/// How much is written a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    /// Records to the input topic.
    pub(crate) records: u64,
    /// Rows to the outbox, beside those of the triage service.
    pub(crate) rows: u64,
}

/// Writes until it is stopped.
#[derive(Debug)]
pub(crate) struct Load {
    feeder: Feeder,
    user: JoinHandle<()>,
    stop: CancellationToken,
}

impl Load {
    /// Begins to write, past every proxy: it is the services that are broken, not their customers.
    pub(crate) fn start(scene: &Scene<'_>, seed: u64, rates: Rates) -> anyhow::Result<Self> {
        let writer = Writer::impatient(&scene.brokers, &scene.input)?;
        let pace = Pace {
            rate: rates.records,
            most: u64::MAX,
        };
        let stop = CancellationToken::new();
        let user = use_library(scene.database.clone(), scene.enqueued.clone(), rates.rows, stop.clone());
        Ok(Self {
            feeder: Feeder::start(writer, Inputs::new(seed, clock::unix_millis()), pace, None),
            user: tokio::spawn(user),
            stop,
        })
    }

    /// Ends the load and returns what was written to the input, by what it is.
    pub(crate) async fn stop(self) -> anyhow::Result<BTreeMap<Kind, u64>> {
        self.stop.cancel();
        self.user.await?;
        self.feeder.stop().await
    }
}

/// Compares what was found with what the load wrote. Its own producer meets the same broken brokers: one that has to
/// begin a new stream after a leader is gone may write records again. Each must be suppressed as a duplicate.
pub(crate) fn compare(verdict: &mut Verdict, written: &mut BTreeMap<Kind, u64>) {
    let again = verdict.records_in.saturating_sub(written.values().sum());
    if again > 0 {
        println!("       the load's own producer wrote {again} records again");
        *written.entry(Kind::Resend).or_default() += again;
    }
    harness::feed::compare(verdict, written);
}

/// Writes transactions of several events, the keys in turn with other writers, whatever becomes of the database.
async fn use_library(database: Database, topic: String, rows: u64, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(Duration::from_millis(1_000 * EVENTS / rows.max(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut connection = None;
    let mut number = 0;
    while !stop.is_cancelled() {
        ticks.tick().await;
        if connection.is_none() {
            connection = database.connect().await.ok();
        }
        number += 1;
        let is_written = match &mut connection {
            Some(connection) => write(connection, &topic, number).await.is_ok(),
            None => false,
        };
        if !is_written {
            connection = None;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn write(connection: &mut PgConnection, topic: &str, number: u64) -> anyhow::Result<()> {
    let event = |place| {
        let key = format!("customer-{}", (number * EVENTS + place) % KEYS);
        NewEvent::new(topic, "chaos.happened", format!("{{\"number\":{number}}}")).key(key)
    };
    let events: Vec<NewEvent> = (0..EVENTS).map(event).collect();
    let mut tx = connection.begin().await?;
    outbox::enqueue_ordered(&mut tx, &events).await?;
    Ok(tx.commit().await?)
}
