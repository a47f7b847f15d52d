//! Rules that the simulation's tests switch off, one at a time: each passes only if the mistake is found.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context;

use crate::compile::{self, Program};
use crate::table::Table;

/// Where these tests are.
const TESTS: [&str; 2] = ["relay::wrong_rules::", "intake::tests::safeguards::"];

/// Their names stand there, to be looked for before anything is compiled.
const SOURCES: [&str; 2] = [
    "tests/simulation/relay/wrong_rules.rs",
    "tests/simulation/intake/tests.rs",
];

/// Runs them in the tree itself, whose code has the switches, and tells of each.
pub(crate) fn try_each(root: &Path, target: &Path, only: &str, table: &mut Table) -> anyhow::Result<()> {
    let sources: Result<String, _> = SOURCES.iter().map(|file| fs::read_to_string(root.join(file))).collect();
    if !sources.context("read the simulation's tests")?.contains(only) {
        return Ok(());
    }
    let program = compile::simulation(root, target)?;
    let began = Instant::now();
    let listed = run(&program, &["--list"])?;
    let tests: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .filter(|test| TESTS.iter().any(|group| test.starts_with(group)) && test.contains(only))
        .collect();
    if tests.is_empty() {
        return Ok(());
    }
    // Each searches on every core by itself.
    let arguments = [&tests[..], &["--exact", "--show-output", "--test-threads=1"]].concat();
    let said = run(&program, &arguments)?;
    for test in &tests {
        let is_found = said.contains(&format!("test {test} ... ok"));
        table.add_rule(test, is_found, told_by(&said, test));
    }
    let (count, took) = (tests.len(), began.elapsed());
    table.note(format!("{count} rules switched off in the simulation take {took:.0?}"));
    Ok(())
}

fn run(program: &Program, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(&program.file);
    command
        .current_dir(&program.folder)
        .args(arguments)
        .stdin(Stdio::null());
    let output = command.output().context("run the simulation's tests")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `12 runs: LOST ...`, of the output of a test.
fn told_by<'t>(said: &'t str, test: &str) -> &'t str {
    let begin = format!("---- {test} stdout ----");
    let mut lines = said.lines().skip_while(|line| *line != begin).skip(1);
    lines.find(|line| !line.trim().is_empty()).unwrap_or("it says nothing")
}
