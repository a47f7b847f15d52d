//! `make simulate`: thousands of schedules of the real relay and the real intake, each from a seed.

use std::process::ExitCode;

use clap::Parser;
use simulation::campaign::{Campaign, rerun};

/// Runs the publisher and the intake through schedules drawn from seeds: crashes, outages, lost answers.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first of them; drawn and printed if it is not named.
    #[arg(long)]
    from: Option<u64>,
    /// Runs this one again and prints it step by step.
    #[arg(long)]
    seed: Option<u64>,
    /// With `--seed`: prints what is left of a failing schedule instead.
    #[arg(long, requires = "seed")]
    shrunk: bool,
    /// Switches a rule off, to see it missed.
    #[arg(long)]
    without: Option<String>,
}

fn main() -> ExitCode {
    let Arguments {
        seeds,
        from,
        seed,
        shrunk,
        without,
    } = Arguments::parse();
    let done = match seed {
        Some(seed) => rerun(seed, without.as_deref(), shrunk, |line| println!("{line}")),
        None => {
            let from = from.unwrap_or_else(|| u64::from(rand::random::<u32>()));
            Campaign { from, seeds, without }.run()
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("simulate: {error:#}");
            ExitCode::from(2)
        }
    }
}
