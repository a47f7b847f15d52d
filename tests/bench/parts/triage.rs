//! How fast records are decided: by the kind of their ids, over claims of a month, when everything comes again.

use anyhow::Context;
use harness::input::Ids;
use harness::process::expect_code;
use harness::{Running, Service};
use sqlx::{Connection, PgConnection};
use tokio::sync::Mutex;

use super::scene::Scene;
use super::{Asked, Found, SOON, reconcile, resident_peak};
use crate::course::{Course, watch};
use crate::fill;
use crate::peers::{Peer, Task, Who};
use crate::site::Site;
use crate::table::Bound;

const V7: &str = "triage-service, UUIDv7";
const V4: &str = "triage-service, UUIDv4";
const V4_KEPT: &str = "triage-service, UUIDv4 over kept claims";
const AGAIN: &str = "triage-service, everything again";
const BEFORE: &str = "triage-service before, UUIDv7";
const PER_EVENT: &str = "one transaction a record";
const SQL: &str = "limit: claim and insert";

/// Everybody in turn, each on records of its own.
///
/// # Errors
/// If anything fails, or reconcile finds something.
pub async fn measure(site: &Site, asked: &Asked) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let mut resident = Vec::new();
    let warm = Scene::new(site).await?;
    warm.fill(site, asked.rows, Ids::V7).await?;
    first(site, &warm, warm.triage(site), asked.rows).await?;
    warm.remove(site).await?;
    for _ in 0..asked.rounds {
        for (name, ids, kept) in [(V7, Ids::V7, 0), (V4, Ids::V4, 0), (V4_KEPT, Ids::V4, asked.claims)] {
            if !asked.wants(name) {
                continue;
            }
            let scene = Scene::new(site).await?;
            scene.fill(site, asked.rows, ids).await?;
            fill::claims(&scene.database, kept).await?;
            let (course, peak) = first(site, &scene, scene.triage(site), asked.rows)
                .await
                .context(name)?;
            found.heats.add(name, course);
            resident.push(peak);
            if ids == Ids::V7 {
                found
                    .heats
                    .add(AGAIN, again(site, &scene, asked.rows).await.context(AGAIN)?);
                limit(site, &mut found, &scene, asked.rows).await.context(SQL)?;
            }
            scene.remove(site).await?;
        }
        if let Some(folder) = &asked.before {
            let scene = Scene::new(site).await?;
            scene.fill(site, asked.rows, Ids::V7).await?;
            let service = scene.triage(site).built_in(folder);
            found.heats.add(
                BEFORE,
                first(site, &scene, service, asked.rows).await.context(BEFORE)?.0,
            );
            scene.remove(site).await?;
        }
        if asked.wants(PER_EVENT) {
            found
                .heats
                .add(PER_EVENT, per_event(site, asked.rows / 10).await.context(PER_EVENT)?);
        }
    }
    judge(&mut found, resident, asked.claims);
    Ok(found)
}

fn judge(found: &mut Found, resident: Vec<f64>, claims: u64) {
    use Bound::{AtLeast, AtMost};
    found.costs(V7, "triage");
    let note = "the same claims, decisions and outbox rows by a bare client";
    found.row(
        "triage, rate against the same SQL by a bare client",
        "",
        found.heats.rates(V7, SQL),
        None,
        note,
    );
    found.row("triage, UUIDv4 against UUIDv7", "", found.heats.rates(V4, V7), None, "");
    let measure = format!("triage, UUIDv4 over {claims} claims kept, against UUIDv7");
    let note = "goal with 10 million claims kept (CLAIMS=10000000)";
    found.row(&measure, "", found.heats.rates(V4_KEPT, V7), Some(AtLeast(0.7)), note);
    found.row(
        "triage, everything again against first delivery",
        "",
        found.heats.rates(AGAIN, V7),
        Some(AtLeast(3.0)),
        "",
    );
    found.row(
        "triage against one transaction a record",
        "",
        found.heats.rates(V7, PER_EVENT),
        None,
        "",
    );
    found.row(
        "triage against the build before",
        "",
        found.heats.rates(V7, BEFORE),
        None,
        "",
    );
    found.row("triage-service resident alone", "MB", resident, Some(AtMost(60.0)), "");
}

/// Records that come for the first time.
async fn first(site: &Site, scene: &Scene, service: Service, rows: u64) -> anyhow::Result<(Course, f64)> {
    let connection = Mutex::new(scene.database.connect().await?);
    let triage = service.start().await?;
    let course = watch(
        site,
        &[&triage],
        rows,
        async || drawn(&connection).await,
        async || Ok(true),
    )
    .await?;
    let resident = end(triage).await?;
    connection.into_inner().close().await?;
    Ok((course, resident))
}

/// Outbox ids that were drawn: one an event, cheap to ask.
async fn drawn(connection: &Mutex<PgConnection>) -> anyhow::Result<u64> {
    let drawn: i64 =
        sqlx::query_scalar("select case when is_called then last_value else 0 end from outbox_events_id_seq")
            .fetch_one(&mut *connection.lock().await)
            .await?;
    Ok(drawn.unsigned_abs())
}

/// The same records again, read by a group that knows nothing of them.
async fn again(site: &Site, scene: &Scene, rows: u64) -> anyhow::Result<Course> {
    let triage = scene.triage_again(site).start().await?;
    let seen = async || Ok(triage.metric("triage_duplicates_total").await?.unwrap_or(0.0) as u64);
    let course = watch(site, &[&triage], rows, seen, async || Ok(true)).await?;
    end(triage).await?;
    Ok(course)
}

async fn end(triage: Running) -> anyhow::Result<f64> {
    let resident = resident_peak(&triage)?;
    expect_code("triage-service", triage.terminate(SOON).await?, 0)?;
    Ok(resident)
}

async fn limit(site: &Site, found: &mut Found, scene: &Scene, rows: u64) -> anyhow::Result<()> {
    reconcile(site, &scene.database, &scene.settings()).await?;
    let database = site.database("bare").await?;
    let task = Task {
        database: database.url.clone(),
        source: scene.database.url.clone(),
        ..Task::of(Who::Write)
    };
    found
        .heats
        .add(SQL, Peer::start(&task).await?.course(site, rows).await?);
    site.remove(&database, &[]).await
}

async fn per_event(site: &Site, rows: u64) -> anyhow::Result<Course> {
    let scene = Scene::new(site).await?;
    scene.fill(site, rows, Ids::V7).await?;
    fill::per_event_tables(&scene.database).await?;
    let task = Task {
        database: scene.database.url.clone(),
        brokers: site.stack.brokers(),
        topic: scene.input.clone(),
        rows,
        ..Task::of(Who::PerEvent)
    };
    let course = Peer::start(&task).await?.course(site, rows).await?;
    scene.remove(site).await?;
    Ok(course)
}
