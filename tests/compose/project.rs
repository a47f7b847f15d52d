//! One Compose project: up, spoken to, and down again whatever happened.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::{Database, folders, ports};
use tempfile::TempDir;

/// What our projects' names begin with; the id of the process that made them follows.
const PREFIX: &str = "claimfirst-test-";
/// How long one command may take, images that are pulled first included.
const COMMAND_WITHIN: Duration = Duration::from_secs(900);
/// The services, in the order of a rolling restart.
pub const SERVICES: [&str; 4] = ["triage-1", "triage-2", "publisher-1", "publisher-2"];

/// A running project. It is taken down, with its data, when this value is dropped.
#[derive(Debug)]
pub struct Project {
    variables: BTreeMap<&'static str, String>,
    folder: TempDir,
}

impl Project {
    /// Starts everything but the stream with `docker/up`, and returns when all of it is healthy.
    pub async fn up() -> anyhow::Result<Self> {
        remove_leftovers()?;
        let folder = tempfile::tempdir().context("make a folder for the passwords")?;
        let mut variables = BTreeMap::from([
            ("COMPOSE_PROJECT_NAME", format!("{PREFIX}{}", std::process::id())),
            ("CLAIMFIRST_ENV", folder.path().join("env").display().to_string()),
            ("PROFILES", "observe".to_owned()),
        ]);
        for port in [
            "POSTGRES_PORT",
            "KAFKA_PORT",
            "TRIAGE_1_PORT",
            "TRIAGE_2_PORT",
            "PUBLISHER_1_PORT",
            "PUBLISHER_2_PORT",
            "PROMETHEUS_PORT",
            "GRAFANA_PORT",
        ] {
            variables.insert(port, ports::free()?.to_string());
        }
        let project = Self { variables, folder };
        let said = project.run("docker/up", &[]).await?;
        eprintln!("{said}");
        Ok(project)
    }

    /// Where Kafka is reached from here.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.variables["KAFKA_PORT"])
    }

    /// The database, as its owner.
    pub fn database(&self) -> anyhow::Result<Database> {
        let drawn = fs::read_to_string(self.folder.path().join("env")).context("read the passwords")?;
        let password = drawn.lines().find_map(|line| line.strip_prefix("POSTGRES_PASSWORD="));
        let password = password.context("docker/up draws a password")?;
        let port = &self.variables["POSTGRES_PORT"];
        Ok(Database {
            name: "claimfirst".to_owned(),
            url: format!("postgres://claimfirst:{password}@127.0.0.1:{port}/claimfirst"),
        })
    }

    /// Where Prometheus is.
    pub fn prometheus(&self) -> anyhow::Result<SocketAddr> {
        self.address("PROMETHEUS_PORT")
    }

    /// Where Grafana is, if it runs.
    pub async fn grafana(&self) -> anyhow::Result<Option<SocketAddr>> {
        let id = self.compose(&["ps", "-q", "grafana"]).await?;
        if id.trim().is_empty() {
            return Ok(None);
        }
        self.address("GRAFANA_PORT").map(Some)
    }

    fn address(&self, port: &str) -> anyhow::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, self.variables[port].parse()?).into())
    }

    /// `docker/compose` with these arguments; returns what it said on stdout.
    pub async fn compose(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run("docker/compose", arguments).await
    }

    /// A program of the repository; returns what it said on stdout.
    pub async fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::from(self.command(program, arguments));
        let ended = tokio::time::timeout(COMMAND_WITHIN, command.kill_on_drop(true).output());
        let ended = ended
            .await
            .with_context(|| format!("{program} {arguments:?} still runs after {COMMAND_WITHIN:?}"))?;
        let output = ended.with_context(|| format!("run {program}"))?;
        ensure!(
            output.status.success(),
            "{program} {arguments:?} ended with {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(folders::workspace().join(program));
        command.args(arguments).envs(&self.variables).stdin(Stdio::null());
        command
    }

    /// The whole log of every container goes to the harness's folder of logs.
    fn keep_logs(&self) -> anyhow::Result<PathBuf> {
        let file = folders::logs()?.join("compose.log");
        let output = self.command("docker/compose", &["logs", "--no-color"]).output()?;
        fs::write(&file, output.stdout)?;
        Ok(file)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        match self.keep_logs() {
            Ok(file) => eprintln!("the logs of the containers are {}", file.display()),
            Err(error) => eprintln!("the logs of the containers are lost: {error:#}"),
        }
        let mut down = self.command("docker/compose", &["down", "--volumes", "--remove-orphans"]);
        // Without its profile a container would stay, and the network with it.
        let ended = down.env("COMPOSE_PROFILES", "load,observe,tools").output();
        match ended {
            Ok(output) if output.status.success() => {}
            Ok(output) => eprintln!("not everything is down: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => eprintln!("nothing is down: {error}"),
        }
    }
}

/// Takes down what earlier runs left that were killed.
fn remove_leftovers() -> anyhow::Result<()> {
    const PROJECT: &str = "com.docker.compose.project";
    let list = Command::new("docker")
        .args(["ps", "--all", "--format"])
        .arg(format!("{{{{.Label \"{PROJECT}\"}}}}"))
        .output();
    // No engine yet: docker/up starts one, or says why not.
    let Ok(list) = list else { return Ok(()) };
    let mut names: Vec<_> = String::from_utf8_lossy(&list.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    for name in names {
        let maker = name.strip_prefix(PREFIX);
        if maker.is_none_or(|pid| Path::new("/proc").join(pid).exists()) {
            continue;
        }
        for (list, remove) in [
            (&["ps", "--all", "--quiet"][..], &["rm", "--force", "--volumes"][..]),
            (&["network", "ls", "--quiet"][..], &["network", "rm"][..]),
            (&["volume", "ls", "--quiet"][..], &["volume", "rm"][..]),
        ] {
            let found = Command::new("docker")
                .args(list)
                .arg("--filter")
                .arg(format!("label={PROJECT}={name}"))
                .output()?;
            let ids = String::from_utf8_lossy(&found.stdout).into_owned();
            if !ids.trim().is_empty() {
                Command::new("docker")
                    .args(remove)
                    .args(ids.split_whitespace())
                    .output()?;
            }
        }
        eprintln!("removed {name}, which a killed run had left");
    }
    Ok(())
}
