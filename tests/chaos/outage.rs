//! `make chaos OUTAGE=seconds`: Kafka is out of reach for a long time while the load goes on.
//!
//! For the first half packets vanish and no connection is closed, for the second half every connection is refused:
//! clients meet the two ways in which a network is away, and the change between them. The time to recover is that
//! until every service is ready and an outcome of each kind comes out again; working off what has piled up takes as
//! long as it takes, and is told apart.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::DateTime;
use harness::proxy::Flow;
use harness::report::{self, Began};
use harness::wait::{self, Seen};
use serde_json::Value;
use shared::clock;

use crate::bounds::Facts;
use crate::campaign::{burnt, reconcile, until_done};
use crate::crew::Crew;
use crate::load::{self, Load, Rates};
use crate::outcome::{Outcome, Told};
use crate::probes::Probes;
use crate::scene::{self, NAMES, PARTITIONS, Scene};
use crate::watch::{Sample, Watched};

/// Load of an outage. Rows enough to fill what a publisher keeps in memory within two minutes.
const RATES: Rates = Rates {
    records: 100,
    rows: 300,
};
/// How long the first round may take, the group's first rebalance included.
const BEGIN_WITHIN: Duration = Duration::from_secs(60);
/// The services work undisturbed for so long before.
const CALM: Duration = Duration::from_secs(10);
/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
/// Until when a return is waited for; the bound itself is [`crate::watch`]'s.
const RETURN_WITHIN: Duration = Duration::from_secs(120);

/// Runs the outage and judges what was seen.
pub(crate) async fn run(lasts: Duration, nodes: usize, seed: u64) -> anyhow::Result<Outcome> {
    let (began, commit) = (Began::now(), report::commit());
    let stack = scene::start_stack(nodes).await?;
    let scene = Scene::new(&stack).await?;
    let services = (0..NAMES.len()).map(|place| scene.service(place)).collect();
    let crew = Crew::start(services).await?;
    let supervisor = crew.supervise();
    let load = Load::start(&scene, seed, RATES)?;
    let mut probes = Probes::start(&scene).await?;
    probes
        .go_through(Instant::now(), BEGIN_WITHIN)
        .await
        .context("before the outage")?;
    tokio::time::sleep(CALM).await; // memory at work is seen before

    let mut watched = watch_outage(&scene, &crew, lasts).await?;
    (watched.recovery, watched.partitions_missing) = until_back(&crew, &probes).await?;
    println!(
        "       everybody was ready and at work {:.1} s after the return",
        watched.recovery
    );
    let returned = Instant::now();
    let mut written = load.stop().await?;
    until_done(&scene).await?;
    let worked_off = returned.elapsed();
    println!(
        "       what had piled up was worked off {:.1} s later",
        worked_off.as_secs_f64()
    );
    probes
        .go_through(Instant::now(), BEGIN_WITHIN)
        .await
        .context("after the outage")?;
    until_done(&scene).await?;
    *written.entry(harness::input::Kind::Fresh).or_default() += probes.written;
    drop(supervisor);
    crew.exit().await?;

    let mut verdict = scene.audit().run().await?;
    load::compare(&mut verdict, &mut written);
    let (attempts, failed) = burnt(&scene).await?;
    let facts = Facts {
        verdict,
        reconciled: reconcile(&scene).await?,
        attempts,
        failed,
        ..Facts::default()
    };
    let mut report = began.report(stack.choice().kind.name(), facts.verdict.clone());
    report.commit = commit;
    report.goals = [facts.goals(), watched.goals()].concat();
    report.ok = report.goals.iter().all(|goal| goal.met);
    report.figures = [
        ("outage_seconds".to_owned(), watched.lasted.round()),
        ("worked_off_after_seconds".to_owned(), worked_off.as_secs_f64().round()),
        ("looks".to_owned(), watched.samples.len() as f64),
    ]
    .into();
    Ok(Outcome {
        report,
        told: Told {
            stack: stack.choice().kind.name().to_owned(),
            nodes,
            seed,
        },
        duplicates: BTreeMap::new(),
        ended_by_themselves: crew.ended(),
    })
}

/// Takes Kafka away and gives it back, and looks at everybody meanwhile.
async fn watch_outage(scene: &Scene<'_>, crew: &Crew, lasts: Duration) -> anyhow::Result<Watched> {
    let (began, began_ms) = (Instant::now(), clock::unix_millis());
    let networks = || scene.networks.iter().map(|networks| &networks.kafka);
    networks().for_each(|network| network.both(Flow::BlackHole));
    println!("       Kafka is out of reach for {lasts:?}: nothing comes through");
    let mut watched = Watched::default();
    let mut is_refused = false;
    while began.elapsed() < lasts {
        if !is_refused && began.elapsed() >= lasts / 2 {
            networks().for_each(|network| network.refuse(true));
            println!("       from now on connections are refused");
            is_refused = true;
        }
        for (place, name) in NAMES.iter().enumerate() {
            let at = began.elapsed().as_secs_f64();
            // One that has ended is started again; between the two it says nothing.
            match look(crew, place, at, began_ms).await {
                Ok(sample) => {
                    println!("{}", line(&sample));
                    watched.samples.push(sample);
                }
                Err(error) => println!("{at:>6.0} s  {name:<12} did not answer: {error:#}"),
            }
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    for network in networks() {
        network.both(Flow::Pass);
        network.refuse(false);
    }
    watched.lasted = began.elapsed().as_secs_f64();
    Ok(watched)
}

async fn look(crew: &Crew, place: usize, at: f64, began_ms: i64) -> anyhow::Result<Sample> {
    let running = crew.running(place)?;
    let readiness: Value = serde_json::from_str(&running.get("/readyz").await?.body).context("read readiness")?;
    let parts = readiness["parts"].as_object().context("readiness names parts")?;
    let mut away = BTreeMap::new();
    for (part, state) in parts.iter().filter(|(_, state)| state["ready"] == false) {
        let since = state["since"].as_str().context("a part says since when")?;
        let since = DateTime::parse_from_rfc3339(since)?.timestamp_millis();
        away.insert(part.clone(), (since - began_ms) as f64 / 1_000.0);
    }
    let owns_some = running.metric("outbox_buckets_held").await?.unwrap_or_default() > 0.0;
    let age = running.metric("outbox_oldest_unpublished_age_seconds").await?;
    Ok(Sample {
        at,
        service: NAMES[place].to_owned(),
        resident_mb: running.resident_bytes()? as f64 / 1e6,
        away,
        oldest_seconds: age.filter(|_| owns_some),
    })
}

fn line(sample: &Sample) -> String {
    let away: Vec<String> = sample
        .away
        .iter()
        .map(|(part, since)| format!("{part} since {since:.1} s"))
        .collect();
    let away = if away.is_empty() {
        "nothing".to_owned()
    } else {
        away.join(", ")
    };
    let oldest = sample
        .oldest_seconds
        .map_or_else(String::new, |age| format!(", oldest row {age:.0} s"));
    format!(
        "{:>6.0} s  {:<12} {:>5.1} MB  away: {away}{oldest}",
        sample.at, sample.service, sample.resident_mb
    )
}

/// Waits until every service is ready and events come out; how long that took, and partitions without an owner.
async fn until_back(crew: &Crew, probes: &Probes) -> anyhow::Result<(f64, i64)> {
    let returned = Instant::now();
    let before = probes.unique();
    wait::until("everybody to be ready and at work", RETURN_WITHIN, || async {
        for (place, name) in NAMES.iter().enumerate() {
            let answer = crew.running(place)?.get("/readyz").await?;
            if answer.status != 200 {
                return Ok(Seen::NotYet(format!("{name}: {}", answer.body)));
            }
        }
        let held = partitions_held(crew).await?;
        let moved = probes.unique().saturating_sub(before);
        Ok(if held == i64::from(PARTITIONS) && moved > 1_000 {
            Seen::Yes(())
        } else {
            Seen::NotYet(format!("{held} partitions have an owner, {moved} events came out"))
        })
    })
    .await?;
    let recovery = returned.elapsed().as_secs_f64();
    Ok((recovery, i64::from(PARTITIONS) - partitions_held(crew).await?))
}

async fn partitions_held(crew: &Crew) -> anyhow::Result<i64> {
    let mut held = 0.0;
    for place in crate::plan::TRIAGE {
        let metric = crew.running(place)?.metric("triage_assigned_partitions").await?;
        held += metric.unwrap_or_default();
    }
    Ok(held as i64)
}
