//! Containers: started by testcontainers, broken by the engine's own commands.
//!
//! testcontainers has no kill and no network fault, so what breaks a container is what a person would
//! type: `docker kill`, `docker pause`, `docker network disconnect`. Everything carries the label of the
//! run ([`run`]), by which it is found and removed also after a test that was killed.

#[cfg_attr(not(feature = "containers"), path = "docker/absent.rs")]
mod container;
pub mod images;
mod made;
pub mod run;
#[cfg(feature = "containers")]
mod watch;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, anyhow, bail};

pub use container::Container;
#[cfg(feature = "containers")]
pub use container::End;
pub use made::Made;

/// Gives the engine a command and returns what it prints.
pub async fn docker<S: AsRef<OsStr>>(arguments: &[S]) -> anyhow::Result<String> {
    let shown = || {
        let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        format!("docker {}", words.join(" "))
    };
    let mut command = tokio::process::Command::new("docker");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = command
        .output()
        .await
        .with_context(|| format!("run `{}`; `.ci/stand-ins` installs and starts an engine", shown()))?;
    if !output.status.success() {
        bail!("`{}`: {}", shown(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Whether tests can start containers: the library for it changes the features of what the services stand on, too,
/// so that all of that would be compiled once more for every other stack.
pub const COMPILED_IN: bool = cfg!(feature = "containers");

/// Why there can be no container.
pub fn left_out() -> anyhow::Error {
    anyhow!("containers are not compiled in: `STACK=containers make ...` does, by `--features system-tests/containers`")
}

/// Whether an engine answers on this machine.
pub fn is_there() -> bool {
    let mut command = std::process::Command::new("docker");
    command.arg("info").stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Those of the values that name a file of this machine: a server in a container needs it at the same place.
pub fn files_named<'v>(values: impl Iterator<Item = &'v str>) -> impl Iterator<Item = &'v str> {
    values.filter(|value| value.starts_with('/') && Path::new(value).is_file())
}
