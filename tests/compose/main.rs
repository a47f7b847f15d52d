//! The Compose project as people run it: up, a stream through it, each service replaced, the servers killed, and
//! everything read back and judged.

use std::time::Duration;

use anyhow::ensure;
use compose::observe;
use compose::project::{Project, SERVICES};
use harness::feed::{Feeder, Pace, Writer};
use harness::input::Inputs;
use harness::wait::{self, Seen};
use harness::{Audit, Triage, process, topics};
use shared::clock;

const INPUT: &str = "triagemate.ingest.input-received.v1";
const OUTPUT: &str = "triagemate.triage.decision-made.v1";
const DEAD_LETTER: &str = "triagemate.ingest.input-received.v1.dlt";
const GROUP: &str = "triage-service";
/// Records a second: enough that every restart happens under load, on two cores beside everything else.
const RATE: u64 = 150;
/// How long the rest may take once the stream has ended, a lease and a group's session included.
const REST_WITHIN: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_loses_nothing() -> anyhow::Result<()> {
    if let Some(reason) = skipped() {
        eprintln!("SKIPPED a_rolling_restart_under_load_loses_nothing: {reason}");
        return Ok(());
    }
    // given everything up, and a stream through it
    let project = Project::up().await?;
    let feeder = stream(&project)?;

    // when each service is replaced, one after the other, and each server is killed
    for line in project.run("docker/rolling-restart", &[]).await?.lines() {
        eprintln!("{line}");
    }

    // then nobody who watches was left without an answer
    let queries = observe::every_panel_has_data(project.prometheus()?).await?;
    let alerts = observe::every_alert_sees_and_is_silent(project.prometheus()?).await?;
    eprintln!("{queries} queries of the dashboard have data, {alerts} alerts see their metrics and are silent");
    the_dashboard_is_there(&project).await?;

    // and nothing is lost, decided twice, out of order, or even published twice
    let written: u64 = feeder.stop().await?.values().sum();
    settled(&project).await?;
    let verdict = audit(&project)?.still_running().run().await?;
    eprintln!("after the rolling restart: {verdict:?}");
    verdict.assert_clean();
    ensure!(
        verdict.records_in == written,
        "{written} records were written, {} are there",
        verdict.records_in
    );
    nobody_logged_an_error(&project).await?;

    // and the operator's tool, which knows nothing of the stream, comes to the same from the data alone
    let ask = ["run", "--rm", "-T", "claimfirst", "reconcile"];
    eprintln!("{}", project.compose(&ask).await?);

    // when the servers are killed under load, and started again on their volumes
    let feeder = stream(&project)?;
    for server in ["postgres", "kafka"] {
        project.compose(&["kill", server]).await?;
        project.compose(&["up", "-d", "--no-deps", server]).await?;
        healthy(&project, server).await?;
    }
    let written = written + feeder.stop().await?.values().sum::<u64>();
    settled(&project).await?;

    // then all services drain, and nothing is lost, decided twice or out of order
    project.compose(&[&["stop"][..], &SERVICES].concat()).await?;
    for service in SERVICES {
        let code = inspect(&project, service, "{{.State.ExitCode}}").await?;
        ensure!(code == "0", "{service} ended with {code}");
    }
    let verdict = audit(&project)?.with_faults().run().await?;
    eprintln!("after the kills of Postgres and Kafka: {verdict:?}");
    verdict.assert_clean();
    ensure!(
        verdict.records_in >= written,
        "{written} records were written, {} are there",
        verdict.records_in
    );
    Ok(())
}

/// Why this machine or this run cannot show it.
fn skipped() -> Option<String> {
    let stack = std::env::var("STACK").unwrap_or_default();
    (stack != "containers").then(|| format!("it needs a container engine: STACK=containers, not {stack:?}"))
}

fn stream(project: &Project) -> anyhow::Result<Feeder> {
    let now_ms = clock::unix_millis();
    let pace = Pace {
        rate: RATE,
        most: u64::MAX,
    };
    let writer = Writer::new(&project.brokers(), INPUT)?;
    Ok(Feeder::start(
        writer,
        Inputs::new(now_ms.unsigned_abs(), now_ms),
        pace,
        None,
    ))
}

fn audit(project: &Project) -> anyhow::Result<Audit> {
    Ok(Audit::new(&project.brokers(), &project.database()?).triage(Triage {
        consumer: GROUP.to_owned(),
        group: GROUP.to_owned(),
        inputs: vec![INPUT.to_owned()],
        output: OUTPUT.to_owned(),
        dead_letter: DEAD_LETTER.to_owned(),
    }))
}

/// Waits until the group is behind every record and no event waits to be published.
async fn settled(project: &Project) -> anyhow::Result<()> {
    let database = project.database()?;
    wait::until(
        "every record decided and every event published",
        REST_WITHIN,
        || async {
            let committed = topics::committed(&project.brokers(), GROUP, INPUT).await?;
            let behind: i64 = committed.iter().map(|at| at.high - at.offset.unwrap_or(0)).sum();
            let mut connection = database.connect().await?;
            let pending: i64 = sqlx::query_scalar("select count(*) from outbox_events where status = 'PENDING'")
                .fetch_one(&mut connection)
                .await?;
            sqlx::Connection::close(connection).await?;
            Ok(Seen::when((behind, pending), |waiting| *waiting == (0, 0)))
        },
    )
    .await
    .map(drop)
}

async fn healthy(project: &Project, service: &str) -> anyhow::Result<()> {
    wait::until(&format!("{service} to be healthy"), REST_WITHIN, || async {
        let health = inspect(project, service, "{{.State.Health.Status}}").await?;
        Ok(Seen::when(health, |health| health == "healthy"))
    })
    .await
    .map(drop)
}

async fn inspect(project: &Project, service: &str, what: &str) -> anyhow::Result<String> {
    let id = project.compose(&["ps", "-q", "--all", service]).await?;
    let output = tokio::process::Command::new("docker")
        .args(["inspect", "--format", what, id.trim()])
        .output()
        .await?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// An error in the log means that somebody must act; nothing that happened here asks for that.
async fn nobody_logged_an_error(project: &Project) -> anyhow::Result<()> {
    let log = project
        .compose(&[&["logs", "--no-color"][..], &SERVICES].concat())
        .await?;
    let errors: Vec<_> = log.lines().filter(|line| line.contains(r#""level":"ERROR""#)).collect();
    ensure!(
        errors.is_empty(),
        "logged, though nothing was broken: {}",
        errors.join("\n")
    );
    Ok(())
}

/// Grafana has read the dashboard, where there is a Grafana.
async fn the_dashboard_is_there(project: &Project) -> anyhow::Result<()> {
    match project.grafana().await? {
        None => eprintln!("SKIPPED Grafana's own look at the dashboard: docker/up says above why it does not run"),
        Some(grafana) => {
            let answer = process::get(grafana, "/api/dashboards/uid/claimfirst").await?;
            ensure!(answer.status == 200, "Grafana has no dashboard: {answer:?}");
        }
    }
    Ok(())
}
