//! What the services cost when nothing happens.

use std::time::{Duration, Instant};

use harness::input::Ids;
use harness::process::expect_code;
use harness::{Database, Running};

use super::scene::Scene;
use super::{Asked, Found, SOON};
use crate::cpu;
use crate::fill::{self, Keys};
use crate::site::Site;
use crate::table::Bound;

/// After a start: what is done once, is done.
const SETTLED_AFTER: Duration = Duration::from_secs(15);
/// How long is looked, each round.
const LOOK: Duration = Duration::from_secs(20);

/// What was done before: a service that has never had anything to do asks less.
const ROWS: u64 = 1_000;

/// One instance of each service without anything to do any more.
///
/// # Errors
/// If a service does not start.
pub async fn measure(site: &Site, asked: &Asked) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let scenes = (Scene::new(site).await?, Scene::new(site).await?);
    scenes.0.fill(site, ROWS, Ids::Mixed).await?;
    fill::outbox(&scenes.1.database, &scenes.1.output, ROWS, Keys::Even).await?;
    let triage = scenes.0.triage(site).start().await?;
    let publisher = site.publisher("publisher", &scenes.1.database).start().await?;
    for running in [&triage, &publisher] {
        running.ready(SOON).await?;
    }
    publisher
        .until_metric("outbox_settled_events_total", SOON, |settled| settled == ROWS as f64)
        .await?;
    tokio::time::sleep(SETTLED_AFTER).await;
    let all = [
        ("triage-service", &triage, &scenes.0.database),
        ("outbox-publisher", &publisher, &scenes.1.database),
    ];
    let mut seen: [Seen; 2] = Default::default();
    for _ in 0..asked.rounds {
        look(site, &all, &mut seen).await?;
    }
    for ((name, ..), seen) in all.iter().zip(seen) {
        let row = |found: &mut Found, what: &str, unit: &str, values, goal| {
            found.row(&format!("{name} idle, {what}"), unit, values, goal, "");
        };
        row(&mut found, "share of a core", "%", seen.cpu, Some(Bound::AtMost(0.5)));
        row(
            &mut found,
            "statements",
            "/s",
            seen.statements,
            Some(Bound::AtMost(10.0)),
        );
        row(&mut found, "resident", "MB", seen.resident, None);
    }
    for running in [triage, publisher] {
        expect_code("a service", running.terminate(SOON).await?, 0)?;
    }
    scenes.0.remove(site).await?;
    scenes.1.remove(site).await?;
    Ok(found)
}

/// What was seen of one, a value a round.
#[derive(Default)]
struct Seen {
    cpu: Vec<f64>,
    statements: Vec<f64>,
    resident: Vec<f64>,
}

async fn look(site: &Site, all: &[(&str, &Running, &Database); 2], seen: &mut [Seen; 2]) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut before = Vec::new();
    for (_, running, database) in all {
        before.push((cpu::used_by(running.pid())?, site.statements(database).await?));
    }
    tokio::time::sleep(LOOK).await;
    for (((_, running, database), seen), (used, statements)) in all.iter().zip(seen).zip(before) {
        let seconds = began.elapsed().as_secs_f64();
        let now = cpu::used_by(running.pid())?;
        seen.cpu.push((now - used).as_secs_f64() / seconds * 100.0);
        seen.statements
            .push((site.statements(database).await? - statements) as f64 / seconds);
        seen.resident.push(running.resident_bytes()? as f64 / 1e6);
    }
    Ok(())
}
