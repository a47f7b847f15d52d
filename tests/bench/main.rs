//! `make bench`.

use std::path::PathBuf;
use std::process::ExitCode;

use bench::parts::publisher::{self, Asked};
use bench::peers::{self, Task};
use bench::site::Site;
use clap::{Parser, Subcommand};

/// Measures the services against the limit and against what others do.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Rounds in which everybody takes a turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only contestants whose name holds this
    #[arg(long, default_value = "")]
    only: String,
    /// Rows of a round
    #[arg(long, default_value_t = 200_000)]
    rows: u64,
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
        rows: arguments.rows,
        rounds: arguments.rounds,
        only: arguments.only.clone(),
        before: arguments.before.clone(),
    };
    let site = Site::start().await?;
    let drain = publisher::drain(&site, &asked, |line| println!("{line}")).await?;
    println!("{drain:#?}");
    Ok(())
}
