//! `make mutants`: changes that would each break a guarantee, one at a time, and the test that finds each.
//!
//! | module | what it is |
//! |---|---|
//! | [`list`] | the changes, as `list.toml` says them |
//! | [`tree`] | a copy of the tree with all of them in it, each behind a switch |
//! | [`compile`] | the one build of the copy |
//! | [`runs`] | a test with one of them switched on, and what becomes of it |
//! | [`rules`] | what the simulation switches off by itself |
//! | [`table`] | what is printed and kept |

mod compile;
mod list;
mod rules;
mod runs;
mod table;
mod tree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::ensure;
use clap::Parser;
use harness::Stack;
use harness::kafka::KafkaOptions;

use crate::compile::Built;
use crate::list::Mutant;
use crate::runs::{Runner, Servers};
use crate::table::Table;

/// Applies changes that would each break a guarantee, one at a time, and says which test finds each.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only mutants whose name holds this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only mutants whose tests start none of our services: neither the rules of the simulation, which its tests
    /// switch off wherever they run.
    #[arg(long)]
    fast: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let began = Instant::now();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let all = list::read(&root.join("tests/mutants/list.toml"))?;
    let chosen: Vec<Mutant> = all
        .iter()
        .filter(|mutant| mutant.name.contains(&arguments.only) && !(arguments.fast && mutant.needs_services()))
        .cloned()
        .collect();

    let mut table = Table::default();
    if !chosen.is_empty() {
        let copy = target.join("mutants/tree");
        tree::copy(&root, &copy, &all)?;
        let built = compile::build(&copy, &target, &chosen)?;
        table.note(format!("{} mutants share a build of {:.0?}", all.len(), built.took));
        try_each(&built, &chosen, &mut table).await?;
    }
    if !arguments.fast {
        rules::try_each(&root, &target, &arguments.only, &mut table)?;
    }
    ensure!(
        !table.is_empty(),
        "no mutant has a name that holds {:?}",
        arguments.only
    );
    table.note(format!("all of it took {:.0?}", began.elapsed()));
    table.keep(&target.join("reports/mutants.md"))?;
    Ok(table.end())
}

/// Servers are started once, for all tests that need some.
async fn try_each(built: &Built, chosen: &[Mutant], table: &mut Table) -> anyhow::Result<()> {
    let stack = if chosen.iter().any(Mutant::needs_servers) {
        Some(Stack::start("mutants", &KafkaOptions::default(), &[]).await?)
    } else {
        None
    };
    let servers = stack.as_ref().map(Servers::of).transpose()?;
    let runner = Runner { built, servers };
    tokio::task::block_in_place(|| {
        runner.without_any(chosen)?;
        runner.each(chosen, |mutant, fate| table.add(mutant, fate))
    })
}
