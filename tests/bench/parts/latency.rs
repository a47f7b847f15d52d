//! How long an event takes at a rate that does not wait for it: from the moment it was due.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::feed::Writer;
use harness::input::{Ids, Inputs};
use harness::process::expect_code;
use harness::wait::{self, Seen};
use harness::{Database, Record};
use hdrhistogram::Histogram;
use serde::Deserialize;
use shared::doorbell::Doorbell;
use shared::outbox::{NewEvent, enqueue_all};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::end_to_end::{self, until_it_holds_all};
use super::scene::Scene;
use super::{Asked, Found, SOON, publisher, reconcile};
use crate::appended::{self, Calendar};
use crate::course::{Course, Moment};
use crate::ends::Ends;
use crate::open_loop::OpenLoop;
use crate::peers::RoundTrip;
use crate::site::{PARTITIONS, Site};
use crate::table::Bound;

/// A rate that is held.
struct Share {
    /// Percent of the rate that was measured just before.
    percent: u64,
    /// How long it is held before it counts. The first record of each partition goes alone, and a broker compiles the
    /// way of small requests, which full ones have not: for half a minute on two cores.
    warm: Duration,
    /// What an event costs the publisher alone.
    published: &'static str,
    /// What it costs from topic to topic.
    decided: &'static str,
}

const SHARES: [Share; 3] = [
    Share {
        percent: 10,
        warm: Duration::from_secs(30),
        published: "rows published at 10 %",
        decided: "topic to topic at 10 %",
    },
    Share {
        percent: 50,
        warm: Duration::from_secs(5),
        published: "rows published at 50 %",
        decided: "topic to topic at 50 %",
    },
    Share {
        percent: 80,
        warm: Duration::from_secs(5),
        published: "rows published at 80 %",
        decided: "topic to topic at 80 %",
    },
];
/// How long each rate is held then.
const LASTS: Duration = Duration::from_secs(10);
/// Connections that write; more of them would be what Postgres is busy with.
const WRITERS: usize = 4;
/// How long a writer gathers what comes due.
const TICK: Duration = Duration::from_millis(2);
/// Most events of one transaction.
const BATCH: usize = 500;
/// Commits and acknowledged records of which the round trip is made.
const ROUND_TRIPS: usize = 500;
/// How long what is under way may take in the end.
const CATCH_UP: Duration = Duration::from_secs(60);

/// Both ways at three rates each.
///
/// # Errors
/// If anything fails, or an event does not come out.
pub async fn measure(site: &Site, asked: &Asked) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let bare = round_trips(site).await.context("the bare round trip")?;
    found.latency("a commit and an acknowledged record, bare", &bare);
    let most = publisher::ours(site, asked.rows, None).await?.course.per_second;
    for share in SHARES {
        let percent = share.percent;
        let rate = (most as u64 * percent / 100).max(1);
        let name = format!("commit to topic at {percent} % ({rate}/s)");
        if !asked.wants(&name) {
            continue;
        }
        let (committed, due, course) = written(site, rate, share.warm).await.with_context(|| name.clone())?;
        found.latency(&name, &committed);
        found.latency(&format!("due to topic at {percent} % ({rate}/s)"), &due);
        found.heats.add(share.published, course);
        found.costs(share.published, share.published);
        if percent == SHARES[0].percent {
            multiples(&mut found, &committed, &bare);
        }
    }
    if !asked.wants("input to outcome") {
        return Ok(found);
    }
    let ours = end_to_end::round(site, asked.rows, None).await?;
    ours.scene.remove(site).await?;
    for share in SHARES {
        let rate = (ours.course.per_second as u64 * share.percent / 100).max(1);
        let name = format!("input to outcome at {} % ({rate}/s)", share.percent);
        let (latency, course) = decided(site, rate, share.warm).await.with_context(|| name.clone())?;
        found.latency(&name, &latency);
        found.heats.add(share.decided, course);
        found.costs(share.decided, share.decided);
    }
    Ok(found)
}

fn multiples(found: &mut Found, ours: &Histogram<u64>, bare: &Histogram<u64>) {
    for quantile in [0.5, 0.99] {
        let multiple = ours.value_at_quantile(quantile) as f64 / bare.value_at_quantile(quantile) as f64;
        let measure = format!(
            "commit to topic at {} %, p{}, of the bare round trip",
            SHARES[0].percent,
            quantile * 100.0
        );
        let note = "a commit and an acknowledged record, one after the other, by a bare client";
        found.row(&measure, "", vec![multiple], Some(Bound::AtMost(3.0)), note);
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("microseconds up to ten minutes, three digits")
}

fn note(histogram: &mut Histogram<u64>, micros: i64) {
    // What came before it was known to be committed took no time.
    histogram.saturating_record(u64::try_from(micros).unwrap_or(0));
}

async fn round_trips(site: &Site) -> anyhow::Result<Histogram<u64>> {
    let database = site.database("round_trip").await?;
    let topic = site.topic("round-trip").await?;
    let mut connection = database.connect().await?;
    let mut sender = RoundTrip::new(&site.stack.brokers(), &topic)?;
    let mut histogram = histogram();
    for number in 0..ROUND_TRIPS + 100 {
        let began = Instant::now();
        store(&mut connection, &[event(&topic, Uuid::now_v7())]).await?;
        tokio::task::block_in_place(|| sender.one())?;
        if number >= 100 {
            note(&mut histogram, began.elapsed().as_micros() as i64);
        }
        tokio::time::sleep(Duration::from_millis(2)).await; // not in step with anything
    }
    connection.close().await?;
    site.remove(&database, &[&topic]).await?;
    Ok(histogram)
}

fn event(topic: &str, id: Uuid) -> NewEvent {
    let payload = format!("{{\"text\":\"{}\"}}", "0123456789".repeat(29));
    NewEvent::new(topic, "bench.row-written", payload)
        .key(format!("customer-{}", id.as_u128() % 1_000))
        .event_id(id)
}

async fn store(connection: &mut PgConnection, events: &[NewEvent]) -> anyhow::Result<()> {
    let mut transaction = connection.begin().await?;
    enqueue_all(&mut transaction, events).await?;
    transaction.commit().await?;
    Ok(())
}

/// When an event was due, and when its transaction had committed.
struct Written {
    id: Uuid,
    due: Instant,
    committed: Instant,
}

/// What these processes and the servers use for what comes to a topic once the rate counts and while it is held.
async fn costs(site: &Site, topic: &str, pids: &[u32], counts_from: Instant) -> anyhow::Result<Course> {
    const EDGE: Duration = Duration::from_millis(500);
    let ends = Arc::new(Ends::new(&site.stack.brokers(), topic, PARTITIONS)?);
    let there = async || {
        let ends = Arc::clone(&ends);
        // Whoever writes must not wait for this.
        let sum = tokio::task::spawn_blocking(move || ends.sum()).await;
        sum.context("the look at a topic's ends panicked")?
    };
    tokio::time::sleep_until(counts_from.into()).await;
    let (then, before) = (Moment::now(site, pids).await?, there().await?);
    tokio::time::sleep_until((counts_from + LASTS - EDGE).into()).await;
    let (now, come) = (Moment::now(site, pids).await?, there().await?);
    ensure!(come > before, "nothing came to {topic} while the rate was held");
    Ok(then.until(now.at(), &now, come - before))
}

/// Rows written at a rate by the library, published: from the commit, and from when they were due.
async fn written(site: &Site, rate: u64, warm: Duration) -> anyhow::Result<(Histogram<u64>, Histogram<u64>, Course)> {
    let database = site.database("latency").await?;
    let topic = site.stack.topic("latency", PARTITIONS, &[appended::BY_BROKER]).await?;
    let publisher = site.publisher("publisher", &database).start().await?;
    until_it_holds_all(&publisher).await?;
    let calendar = Calendar::new()?;
    let began = Instant::now();
    let pids = [publisher.pid()];
    let (written, course) = tokio::try_join!(
        write(&database, &topic, OpenLoop::new(rate, warm + LASTS), began),
        costs(site, &topic, &pids, began + warm)
    )?;
    until_there(site, &topic, written.len()).await?;
    expect_code("outbox-publisher", publisher.terminate(SOON).await?, 0)?;
    reconcile(site, &database, &[]).await?;
    let brokers = site.stack.brokers();
    let read = || appended::read(&brokers, &topic, written.len(), appended::event_id);
    let appended = tokio::task::block_in_place(read)?;
    site.remove(&database, &[&topic]).await?;
    let (mut from_commit, mut from_due) = (histogram(), histogram());
    for event in written.iter().filter(|event| event.due >= began + warm) {
        let at = *appended.get(&event.id).context("an event has not come")?;
        note(&mut from_commit, at - calendar.unix_us(event.committed));
        note(&mut from_due, at - calendar.unix_us(event.due));
    }
    Ok((from_commit, from_due, course))
}

/// Waits until a topic has so many records, and seldom asks.
async fn until_there(site: &Site, topic: &str, records: usize) -> anyhow::Result<()> {
    let ends = Ends::new(&site.stack.brokers(), topic, PARTITIONS)?;
    wait::until("all that was written to be on its topic", CATCH_UP, || async {
        Ok(Seen::when(ends.sum()?, |there| *there >= records as u64))
    })
    .await?;
    Ok(())
}

/// Writes what is due, each transaction all that came due since the last. Nobody waits for what comes of it.
async fn write(database: &Database, topic: &str, events: OpenLoop, began: Instant) -> anyhow::Result<Vec<Written>> {
    let (batches, taken) = mpsc::channel::<Vec<(Uuid, Instant)>>(WRITERS);
    let taken = Arc::new(Mutex::new(taken));
    let doorbell = Doorbell::new(database.url.parse::<PgConnectOptions>()?);
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (taken, doorbell, topic) = (Arc::clone(&taken), doorbell.clone(), topic.to_owned());
        let mut connection = database.connect().await?;
        writers.spawn(async move {
            let mut written = Vec::new();
            loop {
                let Some(batch) = taken.lock().await.recv().await else {
                    connection.close().await?;
                    return anyhow::Ok(written);
                };
                let events: Vec<NewEvent> = batch.iter().map(|(id, _)| event(&topic, *id)).collect();
                store(&mut connection, &events).await?;
                let committed = Instant::now();
                doorbell.ring();
                written.extend(batch.into_iter().map(|(id, due)| Written { id, due, committed }));
            }
        });
    }
    let mut batch = Vec::new();
    let mut next = began;
    for offset in events {
        let due = began + offset;
        if due > next || batch.len() >= BATCH {
            if !batch.is_empty() {
                batches
                    .send(std::mem::take(&mut batch))
                    .await
                    .context("the writers have ended")?;
            }
            next = Instant::now().max(due) + TICK;
            tokio::time::sleep_until(next.into()).await;
        }
        batch.push((Uuid::now_v7(), due));
    }
    batches.send(batch).await.context("the writers have ended")?;
    drop(batches);
    let mut all = Vec::new();
    while let Some(written) = writers.join_next().await {
        all.extend(written.context("a writer panicked")??);
    }
    Ok(all)
}

/// Records sent at a rate, decided and published: from when each was due.
async fn decided(site: &Site, rate: u64, warm: Duration) -> anyhow::Result<(Histogram<u64>, Course)> {
    let scene = Scene::with_output(site, &[appended::BY_BROKER]).await?;
    let publisher = site.publisher("publisher", &scene.database).start().await?;
    until_it_holds_all(&publisher).await?;
    let triage = scene.triage(site).start().await?;
    triage.ready(SOON).await?;
    let records = records(rate, warm + LASTS)?;
    let writer = Writer::gathering(&site.stack.brokers(), &scene.input)?;
    let calendar = Calendar::new()?;
    let began = Instant::now();
    let send = async {
        let mut due_at = HashMap::with_capacity(records.len());
        for ((id, record), offset) in records.iter().zip(OpenLoop::new(rate, warm + LASTS)) {
            let due = began + offset;
            tokio::time::sleep_until(due.into()).await; // gives way to the looks even if it is late
            writer.send(record)?;
            due_at.insert(*id, due);
        }
        Ok(due_at)
    };
    let pids = [triage.pid(), publisher.pid()];
    let (due_at, course) = tokio::try_join!(send, costs(site, &scene.output, &pids, began + warm))?;
    tokio::task::block_in_place(|| writer.flush())?;
    until_there(site, &scene.output, due_at.len()).await?;
    expect_code("triage-service", triage.terminate(SOON).await?, 0)?;
    expect_code("outbox-publisher", publisher.terminate(SOON).await?, 0)?;
    reconcile(site, &scene.database, &scene.settings()).await?;
    let brokers = site.stack.brokers();
    let read = || appended::read(&brokers, &scene.output, due_at.len(), appended::source_event_id);
    let appended = tokio::task::block_in_place(read)?;
    scene.remove(site).await?;
    let mut histogram = histogram();
    for (id, due) in due_at.into_iter().filter(|(_, due)| *due >= began + warm) {
        let at = *appended.get(&id).context("an outcome has not come")?;
        note(&mut histogram, at - calendar.unix_us(due));
    }
    Ok((histogram, course))
}

/// The records of a run, with their ids.
fn records(rate: u64, lasts: Duration) -> anyhow::Result<Vec<(Uuid, Record)>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Id {
        event_id: Uuid,
    }
    let now = shared::clock::unix_millis();
    Inputs::clean(now.unsigned_abs(), now)
        .with_ids(Ids::V4)
        .take((rate * lasts.as_secs()) as usize)
        .map(|input| {
            let value = input.record.value.as_deref().unwrap_or_default();
            let Id { event_id } = serde_json::from_slice(value).context("a record has an id")?;
            Ok((event_id, input.record))
        })
        .collect()
}
