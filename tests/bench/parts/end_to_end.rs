//! From a filled input topic to the output topic: both services, and the limit.

use std::path::Path;

use anyhow::Context;
use harness::input::Ids;
use harness::process::expect_code;
use harness::{Running, Service};

use super::publisher::settled;
use super::scene::Scene;
use super::{Asked, Found, SOON, WARM_ROWS, reconcile, resident_peak};
use crate::counted::{Counted, Counters};
use crate::course::{Course, watch};
use crate::ends::Ends;
use crate::least;
use crate::peers::{Peer, Task, Who};
use crate::site::{PARTITIONS, Site};
use crate::table::Bound;

const OURS: &str = "triage-service and outbox-publisher";
/// Both with the input filled once each has its share, so that no start is measured.
const INSTANCES: [&str; 2] = ["one instance of each", "two instances of each"];
const BEFORE: &str = "both services before";
const SQL: &str = "limit: the SQL of both";
const PRODUCER: &str = "limit: a producer of the outcomes";
const CONSUMER: &str = "limit: a consumer of the input";

/// Buckets of an outbox.
pub(super) const BUCKETS: f64 = 64.0;

/// Ours, then the limit on the rows that ours wrote, in every round.
///
/// # Errors
/// If anything fails, or reconcile finds something.
pub async fn measure(site: &Site, asked: &Asked) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let (mut triage, mut publisher, mut counted) = (Vec::new(), Vec::new(), Vec::new());
    let mut least = Vec::new();
    // The broker compiles what it runs often: the first round is not to pay for that alone.
    let warm = round(site, asked.rows.max(WARM_ROWS), None).await?;
    warm.scene.remove(site).await?;
    for _ in 0..asked.rounds {
        let ours = round(site, asked.rows, None).await.context(OURS)?;
        found.heats.add(OURS, ours.course);
        triage.push(ours.triage_resident);
        publisher.push(ours.publisher_resident);
        counted.push(ours.counted);
        if asked.wants("limit") {
            limits(site, &mut found, &ours.scene, asked.rows).await?;
            least.push(least::log_bytes(&ours.scene.database, asked.rows).await?);
        }
        ours.scene.remove(site).await?;
        for (instances, name) in (1..).zip(INSTANCES) {
            if asked.instances && asked.wants(name) {
                let course = shared(site, asked.rows, instances).await.context(name)?;
                found.heats.add(name, course);
            }
        }
        if let Some(folder) = &asked.before {
            let before = round(site, asked.rows, Some(folder)).await.context(BEFORE)?;
            found.heats.add(BEFORE, before.course);
            before.scene.remove(site).await?;
        }
    }
    judge(&mut found, triage, publisher, &counted);
    log(&mut found, least);
    Ok(found)
}

fn log(found: &mut Found, least: Vec<f64>) {
    let ours = found.heats.each(OURS, |course| Some(course.wal_bytes));
    let ratios = ours.iter().zip(&least).map(|(ours, least)| ours / least).collect();
    found.row("end to end, least log of the same rows", "B/event", least, None, "");
    found.row(
        "end to end, log against the least of the same rows",
        "",
        ratios,
        Some(Bound::AtMost(1.15)),
        "least: each row inserted with one index entry, in one transaction; the outbox row updated once, on its page",
    );
}

fn judge(found: &mut Found, triage: Vec<f64>, publisher: Vec<f64>, counted: &[Counted]) {
    use Bound::{AtLeast, AtMost};
    found.costs(OURS, "end to end");
    found.counted("end to end", counted);
    let share = found.heats.cpu_share(&[SQL, PRODUCER, CONSUMER], OURS);
    found.row(
        "end to end, share of the CPU limit",
        "",
        share,
        Some(AtLeast(0.60)),
        "CPU of the same SQL by a bare client, of a bare producer and of a bare consumer, as a share of ours",
    );
    let rates = found.heats.rates(OURS, SQL);
    found.row(
        "end to end, rate against the same SQL by a bare client",
        "",
        rates,
        None,
        "",
    );
    found.row(
        "end to end, two instances of each against one",
        "",
        found.heats.rates(INSTANCES[1], INSTANCES[0]),
        Some(AtLeast(0.95)),
        "",
    );
    found.row(
        "end to end against the build before",
        "",
        found.heats.rates(OURS, BEFORE),
        None,
        "",
    );
    found.row(
        "triage-service resident under full load",
        "MB",
        triage,
        Some(AtMost(60.0)),
        "",
    );
    found.row(
        "outbox-publisher resident under full load",
        "MB",
        publisher,
        Some(AtMost(60.0)),
        "",
    );
}

/// A round of ours, and what it left.
pub(super) struct Round {
    pub(super) course: Course,
    triage_resident: f64,
    publisher_resident: f64,
    counted: Counted,
    pub(super) scene: Scene,
}

pub(super) async fn round(site: &Site, rows: u64, built_in: Option<&Path>) -> anyhow::Result<Round> {
    let scene = Scene::new(site).await?;
    scene.fill(site, rows, Ids::Mixed).await?;
    let ends = Ends::new(&site.stack.brokers(), &scene.output, PARTITIONS)?;
    let before = Counters::now(site, &scene.database).await?;
    let log_before = site.account().await?.wal_bytes;
    let built = |service: Service| match built_in {
        Some(folder) => service.built_in(folder),
        None => service,
    };
    let publisher = built(site.publisher("publisher", &scene.database)).start().await?;
    until_it_holds_all(&publisher).await?;
    let triage = built(scene.triage(site)).start().await?;
    let is_settled = async || Ok(settled(&publisher).await? >= rows);
    let mut course = watch(site, &[&triage, &publisher], rows, async || ends.sum(), is_settled).await?;
    course.wal_bytes = site.log_since(log_before, rows).await?;
    let (triage_resident, publisher_resident) = (resident_peak(&triage)?, resident_peak(&publisher)?);
    expect_code("triage-service", triage.terminate(SOON).await?, 0)?;
    expect_code("outbox-publisher", publisher.terminate(SOON).await?, 0)?;
    let counted = before.until_now(site, &scene.database, rows).await?;
    reconcile(site, &scene.database, &scene.settings()).await?;
    Ok(Round {
        course,
        counted,
        triage_resident,
        publisher_resident,
        scene,
    })
}

/// What so many instances of each make of an input that is filled when each of them has its share.
async fn shared(site: &Site, rows: u64, instances: usize) -> anyhow::Result<Course> {
    const NAMES: [(&str, &str); 2] = [("triage", "publisher"), ("triage-2", "publisher-2")];
    let scene = Scene::new(site).await?;
    let ends = Ends::new(&site.stack.brokers(), &scene.output, PARTITIONS)?;
    let (mut triages, mut publishers) = (Vec::new(), Vec::new());
    for (triage, publisher) in &NAMES[..instances] {
        triages.push(scene.triage_named(triage, site).start().await?);
        publishers.push(site.publisher(publisher, &scene.database).start().await?);
    }
    let share = |all: f64| all / instances as f64;
    for (triage, publisher) in triages.iter().zip(&publishers) {
        let partitions = share(PARTITIONS.into());
        triage
            .until_metric("triage_assigned_partitions", SOON, |held| held == partitions)
            .await?;
        until_it_holds(publisher, share(BUCKETS)).await?;
    }
    let all: Vec<&Running> = triages.iter().chain(&publishers).collect();
    let is_settled = async || {
        let mut sum = 0;
        for publisher in &publishers {
            sum += settled(publisher).await?;
        }
        Ok(sum >= rows)
    };
    let work = watch(site, &all, rows, async || ends.sum(), is_settled);
    let (course, ()) = tokio::try_join!(work, scene.fill(site, rows, Ids::Mixed))?;
    drop(all);
    for running in triages.into_iter().chain(publishers) {
        expect_code("a service", running.terminate(SOON).await?, 0)?;
    }
    reconcile(site, &scene.database, &scene.settings()).await?;
    scene.remove(site).await?;
    Ok(course)
}

pub(super) async fn until_it_holds_all(publisher: &Running) -> anyhow::Result<()> {
    until_it_holds(publisher, BUCKETS).await
}

/// Waits until an instance has so many buckets, give or take less than one.
pub(super) async fn until_it_holds(publisher: &Running, buckets: f64) -> anyhow::Result<()> {
    publisher
        .until_metric("outbox_buckets_held", 2 * SOON, |held| (held - buckets).abs() < 1.0)
        .await?;
    Ok(())
}

/// The statements of both services on the rows that they wrote, the outcomes sent and the input read, by bare clients.
async fn limits(site: &Site, found: &mut Found, scene: &Scene, rows: u64) -> anyhow::Result<()> {
    let (brokers, source) = (site.stack.brokers(), scene.database.url.clone());
    let database = site.database("bare").await?;
    let replay = Task {
        database: database.url.clone(),
        source: source.clone(),
        ..Task::of(Who::WriteReadAndSettle)
    };
    found.heats.add(SQL, limit(site, &replay, rows).await.context(SQL)?);
    let topic = site.topic("bare").await?;
    let produce = Task {
        source,
        brokers: brokers.clone(),
        topic: topic.clone(),
        rows,
        ..Task::of(Who::Produce)
    };
    found
        .heats
        .add(PRODUCER, limit(site, &produce, rows).await.context(PRODUCER)?);
    site.remove(&database, &[&topic]).await?;
    let consume = Task {
        brokers,
        topic: scene.input.clone(),
        rows,
        ..Task::of(Who::Consume)
    };
    found
        .heats
        .add(CONSUMER, limit(site, &consume, rows).await.context(CONSUMER)?);
    Ok(())
}

async fn limit(site: &Site, task: &Task, rows: u64) -> anyhow::Result<Course> {
    Peer::start(task).await?.course(site, rows).await
}
