//! Whether the last minute of a long run costs what the first one did, and takes as much memory.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::feed::Writer;
use harness::input::{Ids, Inputs};
use harness::process::expect_code;
use harness::wait::{self, Seen};
use harness::{Running, folders};

use super::end_to_end::{self, until_it_holds_all};
use super::scene::Scene;
use super::snapshot::Snapshot;
use super::{Asked, Found, SOON, reconcile};
use crate::course::{Course, Cpu, Moment};
use crate::ends::Ends;
use crate::open_loop::OpenLoop;
use crate::site::{PARTITIONS, Site};
use crate::table::Bound;

/// Events come at so small a part of the rate that was measured just before: a machine that slows down is to keep up.
const PART_OF_MOST: u64 = 6;
/// What an event takes of the disk: its rows 3.7 KB, its two records 0.9, and the proof's temporary tables.
const EVENT_BYTES: u64 = 6_000;
/// What the log takes of it (`max_wal_size`), with something to spare.
const LOG_BYTES: u64 = 18_000_000_000;
/// In the middle a snapshot is held for so small a part of the minutes: ten of an hour.
const HELD_PART: u64 = 6;
/// What a row of the report looks at.
const MINUTE: Duration = Duration::from_secs(60);
/// The first record of each partition goes alone, and the broker compiles: this does not count.
const WARM: Duration = Duration::from_secs(60);
/// Memory may grow by so much from the first minute to the last: an allocator's pages, and no leak.
const RESIDENT: Bound = Bound::AtMost(1.1);

const NAME: &str = "a minute of the soak";
const HELD: &str = "a minute of the soak, a snapshot held";
const BEFORE_HELD: &str = "a minute of the soak before that";

/// From topic to topic at a steady rate, minute by minute.
///
/// # Errors
/// If anything fails, an event does not come out, or reconcile finds something.
pub async fn measure(site: &Site, asked: &Asked) -> anyhow::Result<Found> {
    let before = end_to_end::round(site, asked.rows, None).await?;
    before.scene.remove(site).await?;
    let most = before.course.per_second as u64 / PART_OF_MOST;
    let events = free_bytes()?.saturating_sub(LOG_BYTES) / EVENT_BYTES;
    let rate = most.min(events / (60 * (asked.minutes + 1)));
    ensure!(rate > 0, "the disk has no room for {} minutes", asked.minutes);
    println!("  {rate} events a second for {} minutes", asked.minutes);

    let scene = Scene::new(site).await?;
    let publisher = site.publisher("publisher", &scene.database).start().await?;
    until_it_holds_all(&publisher).await?;
    let triage = scene.triage(site).start().await?;
    triage.ready(SOON).await?;
    let lasts = WARM + MINUTE * u32::try_from(asked.minutes).context("minutes")?;
    let feed = feed(site, &scene, rate, lasts)?;
    let mut found = Found::default();
    let resident = minutes(site, &scene, &triage, &publisher, asked.minutes, &mut found).await?;
    let written = feed.await.context("the feed panicked")??;
    let ends = Ends::new(&site.stack.brokers(), &scene.output, PARTITIONS)?;
    wait::until("every outcome", SOON, || async {
        Ok(Seen::when(ends.sum()?, |there| *there == written))
    })
    .await?;
    expect_code("triage-service", triage.terminate(SOON).await?, 0)?;
    expect_code("outbox-publisher", publisher.terminate(SOON).await?, 0)?;
    reconcile(site, &scene.database, &scene.settings()).await?;
    scene.remove(site).await?;
    judge(&mut found, &resident);
    Ok(found)
}

/// Room on the disk that takes the servers' data.
fn free_bytes() -> anyhow::Result<u64> {
    let said = Command::new("df")
        .arg("-Pk")
        .arg(folders::data_root())
        .output()
        .context("run df")?;
    let said = String::from_utf8(said.stdout).context("what df said")?;
    let free = said.lines().nth(1).and_then(|line| line.split_whitespace().nth(3));
    let kilobytes: u64 = free
        .with_context(|| format!("df said: {said}"))?
        .parse()
        .context("what df said")?;
    Ok(kilobytes * 1_024)
}

/// Events at a rate that waits for nobody, from a thread of their own; how many there were.
fn feed(
    site: &Site,
    scene: &Scene,
    rate: u64,
    lasts: Duration,
) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<u64>>> {
    let writer = Writer::gathering(&site.stack.brokers(), &scene.input)?;
    let now = shared::clock::unix_millis();
    Ok(tokio::task::spawn_blocking(move || {
        let (began, mut written) = (Instant::now(), 0);
        let inputs = Inputs::clean(now.unsigned_abs(), now).with_ids(Ids::V4);
        for (input, due) in inputs.zip(OpenLoop::new(rate, lasts)) {
            std::thread::sleep((began + due).saturating_duration_since(Instant::now()));
            writer.send(&input.record)?;
            written += 1;
        }
        writer.flush()?;
        Ok(written)
    }))
}

/// Megabytes that both services have resident.
type Resident = [f64; 2];

async fn minutes(
    site: &Site,
    scene: &Scene,
    triage: &Running,
    publisher: &Running,
    count: u64,
    found: &mut Found,
) -> anyhow::Result<Vec<Resident>> {
    let ends = Ends::new(&site.stack.brokers(), &scene.output, PARTITIONS)?;
    let pids = [triage.pid(), publisher.pid()];
    tokio::time::sleep(WARM).await;
    let (mut then, mut there) = (Moment::now(site, &pids).await?, ends.sum()?);
    let mut resident = Vec::new();
    let (middle, long) = (count / 2, count / HELD_PART);
    let (before_held, held) = (middle - long..middle, middle..middle + long);
    let mut snapshot = None;
    for minute in 0..count {
        if minute == held.start && !held.is_empty() {
            snapshot = Some(Snapshot::take(&scene.database).await?);
        }
        if minute == held.end
            && let Some(snapshot) = snapshot.take()
        {
            snapshot.let_go().await?;
        }
        tokio::time::sleep_until((then.at() + MINUTE).into()).await;
        let (now, come) = (Moment::now(site, &pids).await?, ends.sum()?);
        ensure!(come > there, "no outcome in a minute");
        let course = then.until(now.at(), &now, come - there);
        found.heats.add(NAME, course);
        for (name, minutes) in [(HELD, &held), (BEFORE_HELD, &before_held)] {
            if minutes.contains(&minute) {
                found.heats.add(name, course);
            }
        }
        let both = [
            triage.resident_bytes()? as f64 / 1e6,
            publisher.resident_bytes()? as f64 / 1e6,
        ];
        println!(
            "      resident: triage-service {:.1} MB, outbox-publisher {:.1} MB",
            both[0], both[1]
        );
        resident.push(both);
        (then, there) = (now, come);
    }
    Ok(resident)
}

fn judge(found: &mut Found, resident: &[Resident]) {
    found.costs(NAME, NAME);
    let share = found.heats.cpu_share(&[BEFORE_HELD], HELD);
    found.row(
        "soak, CPU of an event without a snapshot held against with",
        "",
        share,
        Some(Bound::AtLeast(0.97)),
        "REPEATABLE READ, held for a sixth of the minutes, each against one of those before",
    );
    let mut against_first = |what: &str, of: fn(&Course) -> Option<f64>| {
        let values = found.heats.each(NAME, of);
        let ratio = values.first().zip(values.last()).map(|(first, last)| last / first);
        found.row(
            &format!("soak, {what}, the last minute against the first"),
            "",
            ratio.into_iter().collect(),
            None,
            "",
        );
    };
    let cpu: fn(&Course) -> Option<f64> = |course| course.cpu.as_ref().map(Cpu::total);
    against_first("rate", |course| Some(course.per_second));
    against_first("CPU of an event", cpu);
    against_first("log of an event", |course| Some(course.wal_bytes));
    for (name, service) in ["triage-service", "outbox-publisher"].into_iter().zip(0..) {
        let values: Vec<f64> = resident.iter().map(|both| both[service]).collect();
        let ratio = values.first().zip(values.last()).map(|(first, last)| last / first);
        found.row(
            &format!("soak, {name} resident, the last minute against the first"),
            "",
            ratio.into_iter().collect(),
            Some(RESIDENT),
            "",
        );
        found.row(
            &format!("soak, {name} resident"),
            "MB",
            values,
            Some(Bound::AtMost(60.0)),
            "",
        );
    }
}
