//! `make chaos`: both services as real processes on real Kafka and Postgres, broken at random times from one seed
//! while a load goes on, and judged at the end.
//!
//! | module | has |
//! |---|---|
//! | [`kinds`], [`plan`] | what can be broken; what is, drawn from the seed |
//! | [`scene`], [`disk`] | servers, topics, a network for each service; a disk that may be full |
//! | [`crew`], [`load`], [`probes`] | the services, what they work on, and whether they do |
//! | [`strike`], [`campaign`] | breaking one thing; many of them, and the end |
//! | [`clues`] | where what does not come waits, for people |
//! | [`outage`], [`watch`] | Kafka away for long; what the services said of it |
//! | [`bounds`], [`outcome`] | what must hold; table, JSON and the record that is kept |

mod bounds;
mod campaign;
mod clues;
mod crew;
mod disk;
mod kinds;
mod load;
mod outage;
mod outcome;
mod plan;
mod probes;
mod scene;
mod strike;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use harness::folders;

use crate::campaign::Asked;
use crate::outcome::Outcome;

/// Breaks the services and what they stand on, and proves that nothing was lost.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many faults.
    #[arg(long, default_value_t = 50)]
    faults: usize,
    /// Instead of faults: Kafka is out of reach for so many seconds.
    #[arg(long)]
    outage: Option<u64>,
    /// How many brokers: 1 or 3.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// From which everything is drawn; another one at each run where it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Appends the result to docs/chaos.md.
    #[arg(long)]
    record: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let asked = Asked {
        faults: arguments.faults,
        nodes: arguments.nodes,
        seed,
    };
    let done = async {
        tokio::select! {
            outcome = run(asked, arguments.outage) => tell(&outcome?, arguments.outage.is_some(), arguments.record),
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    };
    match done.await {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => println!("NOT PROVED: see what is BROKEN above"),
        Err(error) => println!("FAILED: {error:#}"),
    }
    let logs = folders::logs().map_or_else(|error| format!("{error:#}"), |folder| folder.display().to_string());
    let stack = std::env::var("STACK").unwrap_or_else(|_| "auto".to_owned());
    println!("its logs are in {logs}; the same faults again:");
    let what = arguments.outage.map_or_else(
        || format!("FAULTS={}", asked.faults),
        |seconds| format!("OUTAGE={seconds}"),
    );
    println!("make chaos {what} NODES={} SEED={seed} STACK={stack}", asked.nodes);
    ExitCode::FAILURE
}

async fn run(asked: Asked, outage: Option<u64>) -> anyhow::Result<Outcome> {
    match outage {
        Some(seconds) => outage::run(Duration::from_secs(seconds), asked.nodes, asked.seed).await,
        None => campaign::run(asked).await,
    }
}

/// Prints, writes and, if that was asked for, keeps what was found; whether everything held.
fn tell(outcome: &Outcome, is_outage: bool, is_kept: bool) -> anyhow::Result<bool> {
    println!("\n{}", outcome.table());
    let file = outcome.write(if is_outage { "chaos-outage" } else { "chaos" })?;
    if is_kept {
        outcome.keep()?;
    }
    if outcome.report.ok {
        let seconds = outcome.report.duration_seconds;
        println!("PROVED: every bound holds (seed {}, {seconds:.0} s)", outcome.told.seed);
    }
    println!("the report is {}", file.display());
    Ok(outcome.report.ok)
}
