//! `make bench`: one run that measures the services, the limit and what others do, in turns on the same machine.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use bench::guard;
use bench::parts::{Asked, end_to_end, growth, idle, latency, publisher, soak, triage};
use bench::peers::{self, Task};
use bench::report::Report;
use bench::site::{Site, Tuned};
use bench::table;
use clap::{Parser, Subcommand, ValueEnum};

/// Measures the services against the limit and against what others do.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only this part; all of them otherwise
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// Rounds in which everybody takes a turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only contestants whose name holds this; several have | between them
    #[arg(long, default_value = "")]
    only: String,
    /// Rows of a round
    #[arg(long, default_value_t = 200_000)]
    rows: u64,
    /// Claims kept from before, where that is measured
    #[arg(long, default_value_t = 1_000_000)]
    claims: u64,
    /// Rows of a large backlog, where that is measured
    #[arg(long, default_value_t = 1_000_000)]
    backlog: u64,
    /// Minutes of a soak, which runs only where it is asked for
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// A setting of our services or of Postgres, as often as wanted: publisher.RELAY__IN_FLIGHT_MAX=8000
    #[arg(long = "set", value_name = "SERVICE.SETTING=VALUE")]
    tuned: Vec<Tuned>,
    /// A short run that fails where a measure is out of its bounds, for CI
    #[arg(long, conflicts_with_all = ["part", "only", "before"])]
    guard: bool,
    /// Folder with the services as they were before a change: measured in turns with those of now
    #[arg(long, value_name = "FOLDER")]
    before: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Whoever is measured beside the services; started by the bench itself
    #[command(hide = true)]
    Peer(Task),
}

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// From the input topic to the output topic
    EndToEnd,
    /// A filled outbox drained
    Publisher,
    /// Records decided
    Triage,
    /// At rates that do not wait
    Latency,
    /// Large backlogs, hot keys, several instances
    Growth,
    /// Nothing to do
    Idle,
    /// An hour at a steady rate; not among all parts
    Soak,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::EndToEnd => "end-to-end",
            Self::Publisher => "publisher",
            Self::Triage => "triage",
            Self::Latency => "latency",
            Self::Growth => "growth",
            Self::Idle => "idle",
            Self::Soak => "soak",
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Some(Command::Peer(task)) => peers::run(task).await,
        None => measure(&arguments).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let asked = Asked {
        rows: if arguments.guard { guard::ROWS } else { arguments.rows },
        rounds: if arguments.guard {
            guard::ROUNDS
        } else {
            arguments.rounds
        },
        claims: arguments.claims,
        backlog: arguments.backlog,
        minutes: arguments.minutes,
        instances: !arguments.guard,
        only: arguments.only.clone(),
        before: arguments.before.clone(),
    };
    let site = Site::start(arguments.tuned.clone()).await?;
    let mut report = Report::new(site.stack.choice().kind.name());
    let wanted = |part: &Part| match arguments.part {
        Some(only) => only == *part,
        None if arguments.guard => matches!(part, Part::EndToEnd | Part::Publisher),
        None => *part != Part::Soak,
    };
    for part in Part::value_variants().iter().copied().filter(wanted) {
        println!("\n{}: {} events a round, each one's turn", part.name(), asked.rows);
        let found = match part {
            Part::EndToEnd => end_to_end::measure(&site, &asked).await?,
            Part::Publisher => publisher::measure(&site, &asked).await?,
            Part::Triage => triage::measure(&site, &asked).await?,
            Part::Latency => latency::measure(&site, &asked).await?,
            Part::Growth => growth::measure(&site, &asked).await?,
            Part::Idle => idle::measure(&site, &asked).await?,
            Part::Soak => soak::measure(&site, &asked).await?,
        };
        report.parts.insert(part.name(), found);
    }
    println!(
        "\n{}, commit {}\n\n{}",
        report.machine,
        report.commit,
        table::terminal(&report.rows())
    );
    let folder = report.write()?;
    let missed = report.missed();
    println!(
        "{missed} goals are missed; table, JSON and plots are in {}",
        folder.display()
    );
    let broken = if arguments.guard {
        guard::broken(&report.rows())
    } else {
        Vec::new()
    };
    ensure!(broken.is_empty(), "out of bounds:\n{}", broken.join("\n"));
    Ok(())
}
