//! `make chaos FAULTS=n`: faults one after the other while the load goes on, then everything is judged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::folders;
use harness::report::{self, Began, Faults};
use harness::wait;
use serde_json::Value;
use sqlx::Connection;

use crate::bounds::{Facts, Reconciled, Struck};
use crate::clues;
use crate::crew::{Crew, Supervisor};
use crate::disk::Disk;
use crate::kinds::Kind;
use crate::load::{self, Load, Rates};
use crate::outcome::{Outcome, Told};
use crate::plan::{self, Fault};
use crate::probes::Probes;
use crate::scene::{self, IN_FLIGHT_MAX, NAMES, Scene};
use crate::strike::Target;

/// Load of a campaign.
const RATES: Rates = Rates { records: 300, rows: 50 };
/// How long the first round may take, the group's first rebalance included.
const BEGIN_WITHIN: Duration = Duration::from_secs(60);
/// How long the rest may take once the load has ended.
const REST_WITHIN: Duration = Duration::from_secs(120);

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) faults: usize,
    pub(crate) nodes: usize,
    pub(crate) seed: u64,
    /// Only these kinds; all if there are none.
    pub(crate) only: Vec<Kind>,
}

/// Runs the whole campaign.
pub(crate) async fn run(asked: Asked) -> anyhow::Result<Outcome> {
    let (began, commit) = (Began::now(), report::commit());
    let stack = scene::start_stack(asked.nodes).await?;
    let scene = Scene::new(&stack).await?;
    let lack = Disk::lacks(scene.postgres);
    let disk = match &lack {
        Some(_) => None,
        None => Some(Disk::under(&scene.database, scene.postgres).await?),
    };
    let faults = plan::draw(asked.seed, asked.faults, asked.nodes, &kinds(&asked, disk.is_some())?);
    println!(
        "{} on {}: {} faults of seed {}; logs are in {}",
        stack.choice().kind.name(),
        if asked.nodes == 1 {
            "one broker"
        } else {
            "three brokers"
        },
        asked.faults,
        asked.seed,
        folders::logs()?.display()
    );
    let mut skipped = Vec::new();
    if let Some(reason) = lack {
        skipped.push(format!("{}: {reason}", Kind::PostgresDiskFull.name()));
    }
    if asked.nodes == 1 {
        skipped.push(format!(
            "{}: NODES=3 has somewhere to move to",
            Kind::LeaderMoved.name()
        ));
    }

    let services = (0..NAMES.len()).map(|place| scene.service(place)).collect();
    let crew = Crew::start(services).await?;
    let supervisor = crew.supervise();
    let load = Load::start(&scene, asked.seed, RATES)?;
    let mut probes = Probes::start(&scene).await?;
    probes
        .go_through(Instant::now(), BEGIN_WITHIN)
        .await
        .context("before the first fault")?;

    let target = Target {
        scene: &scene,
        crew: &crew,
        probes: &mut probes,
        disk: disk.as_ref(),
    };
    let struck = match strike_all(target, &faults, &began).await {
        Ok(struck) => struck,
        Err(error) => {
            clues::tell(&scene.database, &crew).await;
            let missing = probes.missing(&scene).await;
            for line in missing.unwrap_or_else(|error| vec![format!("{error:#}")]) {
                println!("       {line}");
            }
            return Err(error);
        }
    };
    let facts = end(&scene, &crew, supervisor, load, &probes, struck).await?;
    Ok(Outcome {
        told: Told {
            stack: stack.choice().kind.name().to_owned(),
            nodes: asked.nodes,
            seed: asked.seed,
        },
        report: {
            let mut report = began.report(stack.choice().kind.name(), facts.verdict.clone());
            report.commit = commit;
            report.ok = facts.hold();
            report.goals = facts.goals();
            report.faults = by_kind(&facts.struck, |all| {
                Faults::of(all.iter().map(|one| one.recovery.as_secs_f64() * 1_000.0).collect())
            });
            report.skipped = skipped;
            report
        },
        duplicates: by_kind(&facts.struck, |all| all.iter().map(|one| one.duplicates).sum()),
        ended_by_themselves: crew.ended(),
    })
}

/// What this stack can show.
fn kinds(asked: &Asked, has_disk: bool) -> anyhow::Result<Vec<Kind>> {
    let can = |kind: &Kind| match kind {
        Kind::LeaderMoved => asked.nodes > 1,
        Kind::PostgresDiskFull => has_disk,
        _ => true,
    };
    let is_meant = |kind: &Kind| asked.only.is_empty() || asked.only.contains(kind);
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(can).filter(is_meant).collect();
    ensure!(
        !kinds.is_empty(),
        "--only: none of these can be done on {} nodes",
        asked.nodes
    );
    Ok(kinds)
}

async fn strike_all(mut target: Target<'_>, faults: &[Fault], began: &Began) -> anyhow::Result<Vec<Struck>> {
    let mut struck: Vec<Struck> = Vec::new();
    let mut repeats = target.probes.repeats();
    for (number, fault) in faults.iter().enumerate() {
        tokio::time::sleep(fault.calm).await; // the stream runs undisturbed
        // What came late belongs to the fault before.
        let now = target.probes.repeats();
        if let Some(last) = struck.last_mut() {
            last.duplicates += now - repeats;
        }
        repeats = now;
        let recovery = target
            .strike(fault)
            .await
            .with_context(|| format!("fault {} of {}, {fault:?}", number + 1, faults.len()))?;
        let now = target.probes.repeats();
        let one = Struck {
            kind: fault.kind,
            recovery,
            duplicates: now - repeats,
        };
        repeats = now;
        let seconds = began.elapsed().as_secs();
        println!(
            "{:02}:{:02}  {:>3}  {:<24} {:<22} recovered after {:>5.2} s, {} duplicates",
            seconds / 60,
            seconds % 60,
            number + 1,
            fault.kind.name(),
            whom(fault),
            recovery.as_secs_f64(),
            one.duplicates
        );
        struck.push(one);
    }
    Ok(struck)
}

fn whom(fault: &Fault) -> String {
    match fault.victims.as_slice() {
        [] if fault.kind.name().starts_with("postgres") => String::new(),
        [] => format!("node {}", fault.node + 1),
        [0, 1, 2, 3] => "all services".to_owned(),
        places => places.iter().map(|place| NAMES[*place]).collect::<Vec<_>>().join(", "),
    }
}

/// The load ends, everything drains, and is judged twice.
async fn end(
    scene: &Scene<'_>,
    crew: &Arc<Crew>,
    supervisor: Supervisor,
    load: Load,
    probes: &Probes,
    struck: Vec<Struck>,
) -> anyhow::Result<Facts> {
    let mut written = load.stop().await?;
    *written.entry(harness::input::Kind::Fresh).or_default() += probes.written;
    println!(
        "       the load has ended after {} records",
        written.values().sum::<u64>()
    );
    if let Err(error) = until_done(scene).await {
        clues::tell(&scene.database, crew).await;
        return Err(error);
    }
    drop(supervisor);
    crew.exit().await?;
    let mut verdict = scene.audit().run().await?;
    load::compare(&mut verdict, &mut written);
    let (attempts, failed) = burnt(scene).await?;
    Ok(Facts {
        verdict,
        reconciled: reconcile(scene).await?,
        attempts,
        failed,
        struck,
        in_flight_max: IN_FLIGHT_MAX,
        rows_per_second: RATES.records + RATES.rows,
    })
}

/// Waits until the group is behind every record and everything is published.
pub(crate) async fn until_done(scene: &Scene<'_>) -> anyhow::Result<()> {
    wait::until_done(&scene.database, REST_WITHIN, || scene.is_consumed()).await
}

/// Attempts that rows have counted, and rows set aside.
pub(crate) async fn burnt(scene: &Scene<'_>) -> anyhow::Result<(u64, u64)> {
    let mut connection = scene.database.connect().await?;
    let (attempts, failed): (i64, i64) = sqlx::query_as(
        "select coalesce(sum(publish_attempts), 0)::bigint, \
                count(*) filter (where status = 'FAILED') + (select count(*) from outbox_failed_archive) \
           from outbox_events",
    )
    .fetch_one(&mut connection)
    .await?;
    connection.close().await?;
    Ok((attempts.unsigned_abs(), failed.unsigned_abs()))
}

/// Asks the operator's tool, which shares no code with the services nor with the judge.
pub(crate) async fn reconcile(scene: &Scene<'_>) -> anyhow::Result<Reconciled> {
    let file = folders::logs()?.join("reconcile.json");
    let path = file.to_str().context("the log folder has a name in UTF-8")?;
    let (code, printed, complained) = scene.tool().run_with(&["reconcile", "--report", path]).await?;
    let code = code.context("claimfirst reconcile was ended by a signal")?;
    if code != 0 {
        println!("{printed}{complained}");
    }
    if code > 1 {
        return Ok(Reconciled {
            code,
            ..Reconciled::default()
        });
    }
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&file)?).context("read the tool's report")?;
    let is_bad = |finding: &&Value| finding["class"] == "wrong" || finding["class"] == "not-finished";
    let findings = report["findings"].as_array().into_iter().flatten().filter(is_bad);
    Ok(Reconciled {
        code,
        findings: findings
            .filter_map(|finding| Some((finding["code"].as_str()?.to_owned(), finding["count"].as_u64()?)))
            .collect(),
    })
}

fn by_kind<T>(struck: &[Struck], sum: impl Fn(&[Struck]) -> T) -> BTreeMap<String, T> {
    let mut kinds: BTreeMap<String, Vec<Struck>> = BTreeMap::new();
    for one in struck {
        kinds.entry(one.kind.name().to_owned()).or_default().push(*one);
    }
    kinds.into_iter().map(|(kind, all)| (kind, sum(&all))).collect()
}
