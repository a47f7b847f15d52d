//! What the services cost when nothing happens.

use std::time::{Duration, Instant};

use anyhow::Context;
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

/// Pause of a thread that does nothing but sleep: what a wake-up costs on this machine, whoever wakes up.
const SLEEP: Duration = Duration::from_millis(50);

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
    let mut asleep = Vec::new();
    for _ in 0..asked.rounds {
        asleep.push(look(site, &all, &mut seen).await?);
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
        let by_sleeper = seen.cpu_of_wakeup.iter().zip(&asleep).map(|(ours, bare)| ours / bare);
        row(
            &mut found,
            "CPU of a wake-up against that of a thread that only sleeps",
            "",
            by_sleeper.collect(),
            None,
        );
        row(&mut found, "wake-ups", "/s", seen.wakeups, None);
        row(&mut found, "CPU of a wake-up", "us", seen.cpu_of_wakeup, None);
        row(&mut found, "resident", "MB", seen.resident, None);
    }
    found.row("a thread that only sleeps, CPU of a wake-up", "us", asleep, None, "");
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
    wakeups: Vec<f64>,
    cpu_of_wakeup: Vec<f64>,
    resident: Vec<f64>,
}

/// Looks at all for a while. Returns the microseconds that a wake-up took of a thread that slept beside them.
async fn look(site: &Site, all: &[(&str, &Running, &Database); 2], seen: &mut [Seen; 2]) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut before = Vec::new();
    for (_, running, database) in all {
        let (used, woken) = (cpu::used_by(running.pid())?, cpu::wakeups(running.pid())?);
        before.push((used, woken, site.statements(database).await?));
    }
    let asleep = tokio::task::spawn_blocking(asleep)
        .await
        .context("a sleeper panicked")??;
    for (((_, running, database), seen), (used, woken, statements)) in all.iter().zip(seen).zip(before) {
        let seconds = began.elapsed().as_secs_f64();
        let used = (cpu::used_by(running.pid())? - used).as_secs_f64();
        let woken = cpu::wakeups(running.pid())?.saturating_sub(woken).max(1) as f64;
        seen.cpu.push(used / seconds * 100.0);
        seen.wakeups.push(woken / seconds);
        seen.cpu_of_wakeup.push(used * 1e6 / woken);
        seen.statements
            .push((site.statements(database).await? - statements) as f64 / seconds);
        seen.resident.push(running.resident_bytes()? as f64 / 1e6);
    }
    Ok(asleep)
}

/// Sleeps again and again. Returns the microseconds of CPU of each time.
fn asleep() -> anyhow::Result<f64> {
    let (began, used, mut times) = (Instant::now(), cpu::used_by_this_thread()?, 0);
    while began.elapsed() < LOOK {
        std::thread::sleep(SLEEP);
        times += 1;
    }
    Ok((cpu::used_by_this_thread()? - used).as_secs_f64() * 1e6 / f64::from(times))
}
