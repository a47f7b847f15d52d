//! The one build of the copy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::list::Mutant;

/// Test programs of the copy.
pub(crate) struct Built {
    /// By package and test target.
    programs: BTreeMap<(String, String), Program>,
    pub(crate) took: Duration,
}

/// A program of tests, and the folder that cargo would run it in.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) file: PathBuf,
    pub(crate) folder: PathBuf,
}

impl Built {
    /// The program that holds a mutant's test.
    pub(crate) fn of(&self, mutant: &Mutant) -> anyhow::Result<&Program> {
        let [package, target, _] = &mutant.test;
        let program = self.programs.get(&(package.clone(), target.clone()));
        program.with_context(|| format!("mutant {}: {package} has no test target {target}", mutant.name))
    }
}

/// Builds what the tests of these mutants need.
///
/// What the copy shares with the tree lies in the tree's target folder and is compiled once; programs go to a folder
/// of the copy's own, where they find the copy's services and no others.
pub(crate) fn build(copy: &Path, target: &Path, chosen: &[Mutant]) -> anyhow::Result<Built> {
    let began = Instant::now();
    let own = target.join("mutants/build");
    let cargo = |arguments: &[&str]| cargo(copy, &own, target, arguments);
    if chosen.iter().any(Mutant::needs_services) {
        cargo(&["build", "-p", "triage-service", "-p", "outbox-publisher", "-p", "cli"])?;
    }
    let targets: BTreeSet<(&str, &str)> = chosen
        .iter()
        .map(|mutant| (mutant.test[0].as_str(), mutant.test[1].as_str()))
        .collect();
    let (units, others): (Vec<_>, Vec<_>) = targets.into_iter().partition(|(_, target)| *target == "lib");
    let mut programs = BTreeMap::new();
    let mut arguments = vec!["test", "--no-run", "--lib"];
    arguments.extend(units.iter().flat_map(|(package, _)| ["-p", package]));
    if !units.is_empty() {
        programs.extend(cargo(&arguments)?);
    }
    for (package, target) in others {
        programs.extend(cargo(&["test", "--no-run", "-p", package, "--test", target])?);
    }
    let folder = own.join("release/deps");
    fs::create_dir_all(&folder)?;
    for program in programs.values_mut() {
        program.file = moved(&program.file, &folder)?;
    }
    Ok(Built {
        programs,
        took: began.elapsed(),
    })
}

/// A test program looks for the services of the target folder that it lies in itself.
fn moved(program: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let place = folder.join(program.file_name().context("a program has a name")?);
    if place.exists() {
        fs::remove_file(&place)?;
    }
    if fs::hard_link(program, &place).is_err() {
        fs::copy(program, &place).with_context(|| format!("copy {}", program.display()))?;
    }
    Ok(place)
}

/// The tests of the simulation as the tree itself has them: with all else that `make test` builds, or features would
/// differ, and everything would be compiled once more.
pub(crate) fn simulation(root: &Path, target: &Path) -> anyhow::Result<Program> {
    let arguments = ["test", "--no-run", "--lib", "--workspace", "--exclude", "compose"];
    let mut programs = cargo(root, target, target, &arguments)?;
    let found = programs.remove(&("simulation".to_owned(), "lib".to_owned()));
    found.context("the simulation has tests")
}

/// Runs cargo in a tree: programs go to `target`, what is compiled on the way to `build`. The test programs that it
/// made.
fn cargo(
    tree: &Path,
    target: &Path,
    build: &Path,
    arguments: &[&str],
) -> anyhow::Result<BTreeMap<(String, String), Program>> {
    println!("cargo {}", arguments.join(" "));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(tree)
        .args(arguments)
        .args(["--release", "--message-format=json"]);
    command
        .env("CARGO_BUILD_BUILD_DIR", build)
        .env("CARGO_TARGET_DIR", target);
    // What cargo says of this package would be taken for what it says of others.
    for (name, _) in std::env::vars_os() {
        let is_cargos = |prefix| name.to_str().is_some_and(|name| name.starts_with(prefix));
        if is_cargos("CARGO_PKG_") || is_cargos("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.context("run cargo")?;
    let mut programs = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Value = serde_json::from_str(line).context("cargo speaks JSON")?;
        if message["message"]["level"] == "error" {
            eprintln!("{}", message["message"]["rendered"].as_str().unwrap_or_default());
        }
        programs.extend(program(&message)?);
    }
    ensure!(
        output.status.success(),
        "cargo {} ended with {}",
        arguments.join(" "),
        output.status
    );
    Ok(programs)
}

fn program(message: &Value) -> anyhow::Result<Option<((String, String), Program)>> {
    let (Some(file), true) = (message["executable"].as_str(), message["profile"]["test"] == true) else {
        return Ok(None);
    };
    let (Some(manifest), Some(name)) = (message["manifest_path"].as_str(), message["target"]["name"].as_str()) else {
        bail!("cargo does not say what {file} is");
    };
    let folder = Path::new(manifest).parent().context("a manifest lies in a folder")?;
    let package = package_of(message["package_id"].as_str().unwrap_or_default());
    let target = if message["target"]["kind"][0] == "test" {
        name
    } else {
        "lib"
    };
    let program = Program {
        file: file.into(),
        folder: folder.to_owned(),
    };
    Ok(Some(((package.to_owned(), target.to_owned()), program)))
}

/// `path+file:///folder/of/shared#0.1.0`, or `...#name@0.1.0` where the folder has another name.
fn package_of(id: &str) -> &str {
    let (folder, version) = id.rsplit_once('#').unwrap_or((id, ""));
    match version.split_once('@') {
        Some((name, _)) => name,
        None => folder.rsplit('/').next().unwrap_or(folder),
    }
}
