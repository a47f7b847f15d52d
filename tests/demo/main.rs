//! `make demo`: a stream runs through both services while some of them are killed and frozen, and at the
//! end everything is read back from Kafka and Postgres and judged.
//!
//! `make floor` (`demo --timed`) measures instead, against a bare client on the same machine.

mod cast;
mod floor;
mod proof;
mod scene;
mod screen;
mod story;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use harness::docker::images;
use harness::kafka::{Kafka, KafkaOptions};
use harness::report::{Began, Report};
use harness::stack::Choice;
use harness::{Ability, Stack, StackKind};

use crate::floor::{Figures, Size};
use crate::scene::Scene;
use crate::screen::Screen;

/// Shows both services surviving kills, and proves it.
#[derive(Debug, Parser)]
struct Arguments {
    /// Measures the floor instead: throughput against a bare client, memory, latency.
    #[arg(long)]
    timed: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let screen = Arc::new(Screen::new());
    let done = async {
        tokio::select! {
            outcome = async { if arguments.timed { timed(&screen).await } else { demo(&screen).await } } => outcome,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    };
    match done.await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            screen.end_live();
            screen.say(format!("{} {error:#}", screen.red("failed:")));
            ExitCode::FAILURE
        }
    }
}

/// Whether the proof holds.
async fn demo(screen: &Arc<Screen>) -> anyhow::Result<bool> {
    let began = Began::now();
    let choice = Choice::from_environment()?;
    screen.heading("Claimfirst: decide once, publish in order, whatever dies");
    screen.say(
        "Two triage services and two publishers, as real processes, work on a stream of support messages\n\
         with duplicates, resends, broken records, tombstones and poison in it. Meanwhile a publisher and a\n\
         triage service are killed, and a publisher is frozen until its lease has gone to another one.\n\
         In the end every record is read back from Kafka and Postgres and judged.",
    );
    screen.say("");
    let stack = start(choice, screen).await?;
    let scene = Scene::new(&stack, "demo").await?;
    let told = story::play(&stack, &scene, screen).await?;

    screen.doing("reading everything back");
    let mut verdict = scene.audit().with_faults().run().await?;
    harness::feed::compare(&mut verdict, &told.written);
    screen.end_live();
    screen.heading("The floor, in short (`make floor` measures longer)");
    screen.begin_timeline();
    let figures = floor::measure(&stack, screen, Size::SHORT).await?;
    verdict.problems.extend(
        figures
            .verdict
            .problems
            .iter()
            .map(|problem| format!("while measuring: {problem}")),
    );

    let mut report = began.report(stack.choice().kind.name(), verdict);
    report.latency_ms = told.latency;
    report.faults = told.faults;
    report.goals = figures.goals();
    report.figures = figures.named().into_iter().collect();
    report.skipped = skipped(&stack);
    screen.say("");
    proof::show_goals(screen, &report.goals);
    screen.heading("Read back from Kafka and Postgres");
    let resident = [
        ("triage-service", told.cast.resident("triage")),
        ("outbox-publisher", told.cast.resident("publisher")),
    ];
    proof::show(screen, &report, &told.written, &resident);
    let file = report.write("demo")?;
    screen.say("");
    screen.say(verdict_line(screen, &report));
    screen.say(screen.dim(&format!(
        "{:.0} s; the report is {}",
        report.duration_seconds,
        shown(&file)
    )));
    screen.say("");
    if report.ok {
        scene.clean_up(&stack).await?;
    }
    Ok(report.ok)
}

/// Whether every figure meets its goal.
async fn timed(screen: &Arc<Screen>) -> anyhow::Result<bool> {
    let began = Began::now();
    let choice = Choice::from_environment()?;
    screen.heading("Claimfirst: the floor");
    screen.say(
        "One triage service and one publisher work off a full input topic; then a bare client runs the same\n\
         statements on the same rows: claim, decision and outbox event in one transaction per 500, on four\n\
         connections; then read and settle. The ratio of the rates says what all the rest costs.",
    );
    screen.say("");
    let stack = start(choice, screen).await?;
    if let Some(reason) = stack.lacks(Ability::LongTopics) {
        anyhow::bail!("the floor is measured with STACK=kafka or env: {reason}");
    }
    screen.begin_timeline();
    let figures = floor::measure(&stack, screen, Size::TIMED).await?;
    let report = timed_report(&began, &stack, figures);
    screen.say("");
    proof::show_goals(screen, &report.goals);
    if let Some(latency) = report.latency_ms {
        screen.say(proof::latency_line("a record alone", latency));
    }
    let verdict = report.verdict.clone().unwrap_or_default();
    for problem in report.skipped.iter().chain(&verdict.problems) {
        screen.say(format!("{} {problem}", screen.red("problem:")));
    }
    let file = report.write("floor")?;
    screen.say("");
    let line = if report.ok {
        screen.green("The floor holds")
    } else {
        screen.red("The floor does NOT hold")
    };
    screen.say(format!(
        "{line}; {} events, {} lost, {} out of order",
        verdict.events_unique, verdict.lost, verdict.order_violations
    ));
    screen.say(screen.dim(&format!(
        "{:.0} s; the report is {}",
        report.duration_seconds,
        shown(&file)
    )));
    screen.say("");
    Ok(report.ok)
}

fn timed_report(began: &Began, stack: &Stack, figures: Figures) -> Report {
    let (goals, named, alone) = (figures.goals(), figures.named(), figures.alone);
    let mut report = began.report(stack.choice().kind.name(), figures.verdict);
    report.latency_ms = alone;
    report.figures = named.into_iter().collect();
    report.skipped = skipped(stack);
    report.ok &= goals.iter().all(|goal| goal.met);
    report.goals = goals;
    report
}

/// Starts the stack and says what it is.
async fn start(choice: Choice, screen: &Screen) -> anyhow::Result<Stack> {
    screen.doing(match choice.kind {
        StackKind::Env => "reaching the given Kafka and Postgres",
        StackKind::Embedded => "starting Postgres and a mock cluster",
        StackKind::Kafka => "starting Apache Kafka and Postgres",
        StackKind::Containers => "starting Apache Kafka and Postgres in containers",
    });
    let reason = choice.reason.clone();
    let stack = Stack::start_chosen(choice, "demo", &KafkaOptions::default(), &[]).await?;
    let probe = stack.empty_database("probe").await?;
    let mut connection = probe.connect().await?;
    let version: String = sqlx::query_scalar("show server_version")
        .fetch_one(&mut connection)
        .await?;
    sqlx::Connection::close(connection).await?;
    stack.drop_database(&probe).await.context("drop the probe")?;
    screen.end_live();
    let kafka = match stack.choice().kind {
        StackKind::Env => format!("Kafka at {}", stack.brokers()),
        StackKind::Embedded => "librdkafka's mock cluster".to_owned(),
        StackKind::Kafka => format!("Apache Kafka {}", kafka_version().unwrap_or_default()),
        StackKind::Containers => format!("Apache Kafka {}", images::KAFKA_TAG),
    };
    let postgres = version.split(' ').next().unwrap_or_default();
    screen.say(format!(
        "{kafka}, Postgres {postgres}  {}",
        screen.dim(&format!("({reason})"))
    ));
    screen.say("");
    Ok(stack)
}

/// What stands in the name of the jar.
fn kafka_version() -> Option<String> {
    std::fs::read_dir(Kafka::jars()).ok()?.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some(name.strip_prefix("kafka_2.13-")?.strip_suffix(".jar")?.to_owned())
    })
}

/// What the stack cannot show, though the demo would.
fn skipped(stack: &Stack) -> Vec<String> {
    let shown = [
        (
            "a broker that drops resends of an idempotent producer",
            Ability::ProducerState,
        ),
        ("throughput against a bare client", Ability::LongTopics),
        ("latency of a record alone", Ability::PromptFetch),
    ];
    let lacking = shown
        .iter()
        .filter_map(|(what, ability)| Some(format!("{what}: {}", stack.lacks(*ability)?)));
    lacking.collect()
}

fn verdict_line(screen: &Screen, report: &Report) -> String {
    let verdict = report.verdict.clone().unwrap_or_default();
    if report.ok {
        format!(
            "{}  {} records in, every event decided exactly once, nothing lost, no order broken.",
            screen.green("PROVED"),
            screen::grouped(verdict.records_in)
        )
    } else {
        format!(
            "{}  {} problems, see above.",
            screen.red("NOT PROVED"),
            verdict.problems.len()
        )
    }
}

/// A path as it is seen from the root of the workspace.
fn shown(file: &std::path::Path) -> String {
    let root = std::path::absolute(harness::folders::workspace())
        .ok()
        .and_then(|path| path.canonicalize().ok());
    let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    root.and_then(|root| file.strip_prefix(root).ok().map(|path| path.display().to_string()))
        .unwrap_or_else(|| file.display().to_string())
}
