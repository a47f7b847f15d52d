//! Our two services as real processes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::binaries;
use crate::children::{Guarded, Signal};
use crate::folders;
use crate::stack::unique;
use crate::wait::{self, Seen};

/// How long a service may take to open its HTTP port; it migrates the schema before.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How long one HTTP answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A service that is to be started.
#[derive(Debug, Clone)]
pub struct Service {
    name: String,
    binary: &'static str,
    prefix: &'static str,
    environment: BTreeMap<String, String>,
    /// Where the binary lies that is not the one of this tree.
    folder: Option<PathBuf>,
}

/// A service that was started; it is killed when this value is dropped.
#[derive(Debug)]
pub struct Running {
    name: String,
    process: Guarded,
    http: SocketAddr,
    log: PathBuf,
}

/// An answer of the service.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Service {
    /// `triage-service`; `name` is for logs and people.
    pub fn triage(name: &str) -> Self {
        Self::new(name, "triage-service", "TRIAGE__")
    }

    /// `outbox-publisher`; `name` is for logs and people.
    pub fn publisher(name: &str) -> Self {
        Self::new(name, "outbox-publisher", "OUTBOX__")
    }

    /// `claimfirst`, which is run to its end by [`Service::run_with`].
    pub fn tool(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            binary: "claimfirst",
            prefix: "CLAIMFIRST__",
            environment: BTreeMap::new(),
            folder: None,
        }
    }

    fn new(name: &str, binary: &'static str, prefix: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            binary,
            prefix,
            environment: BTreeMap::new(),
            folder: None,
        }
        .set("HTTP__LISTEN", "127.0.0.1:0")
        .set("TELEMETRY__LOG_FORMAT", "json")
    }

    /// A setting by its name without the service's prefix: `KAFKA__BROKERS`.
    #[must_use]
    pub fn set(mut self, setting: &str, value: impl ToString) -> Self {
        self.environment
            .insert(format!("{}{setting}", self.prefix), value.to_string());
        self
    }

    /// A variable of the environment by its whole name.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.insert(name.to_owned(), value.to_string());
        self
    }

    /// As it was built elsewhere: the binary of that folder.
    #[must_use]
    pub fn built_in(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// The variables that make its settings.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// The binary's name.
    pub fn binary(&self) -> &'static str {
        self.binary
    }

    /// Starts the service and waits until its HTTP port is known; it may not be ready yet.
    pub async fn start(&self) -> anyhow::Result<Running> {
        let folder = folders::logs()?;
        let run = unique(&self.name);
        let (log, address_file) = (folder.join(format!("{run}.log")), folder.join(format!("{run}.address")));
        let mut command = self.command().await?;
        let output = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        command.env(format!("{}HTTP__ADDRESS_FILE", self.prefix), &address_file);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let process = Guarded::spawn(&self.name, command, Signal::Kill)?;
        let http = wait::until(
            &format!("{} to open its HTTP port", self.name),
            START_WITHIN,
            || async {
                if let Some(status) = process.ended()? {
                    return Ok(Seen::NotYet(format!(
                        "it has ended with {status}: {}",
                        last_lines(&log)
                    )));
                }
                Ok(read_address(&address_file))
            },
        )
        .await
        .with_context(|| format!("its log is {}", log.display()))?;
        Ok(Running {
            name: self.name.clone(),
            process,
            http,
            log,
        })
    }

    /// Runs the service with these arguments to its end and returns exit code, stdout and stderr.
    pub async fn run_with(&self, arguments: &[&str]) -> anyhow::Result<(Option<i32>, String, String)> {
        self.run_within(arguments, START_WITHIN).await
    }

    /// The same where it may take longer than a test.
    pub async fn run_within(
        &self,
        arguments: &[&str],
        within: Duration,
    ) -> anyhow::Result<(Option<i32>, String, String)> {
        let mut command = tokio::process::Command::from(self.command().await?);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(within, command.output())
            .await
            .with_context(|| format!("{} {arguments:?} still runs after {within:?}", self.binary))??;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((output.status.code(), text(output.stdout), text(output.stderr)))
    }

    async fn command(&self) -> anyhow::Result<Command> {
        let folder = match &self.folder {
            Some(folder) => folder.clone(),
            None => binaries::build().await?,
        };
        let mut command = Command::new(folder.join(self.binary));
        // Settings of the caller's shell must not reach the service.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with(self.prefix)) {
                command.env_remove(name);
            }
        }
        command.envs(&self.environment);
        Ok(command)
    }
}

impl Running {
    /// The name it was started with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its HTTP address.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether the log has a line with this text by now.
    pub fn has_logged(&self, text: &str) -> anyhow::Result<bool> {
        Ok(fs::read_to_string(&self.log)?.contains(text))
    }

    /// GET of a path such as `/readyz`.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        tokio::time::timeout(ANSWER_WITHIN, get(self.http, path))
            .await
            .with_context(|| format!("{} did not answer {path}", self.name))?
    }

    /// Waits until `/readyz` says yes.
    pub async fn ready(&self, within: Duration) -> anyhow::Result<()> {
        wait::until(&format!("{} to be ready", self.name), within, || async {
            if let Some(status) = self.process.ended()? {
                return Ok(Seen::NotYet(format!(
                    "it has ended with {status}: {}",
                    last_lines(&self.log)
                )));
            }
            let answer = self.get("/readyz").await?;
            Ok(if answer.status == 200 {
                Seen::Yes(())
            } else {
                Seen::NotYet(answer.body)
            })
        })
        .await
        .with_context(|| format!("its log is {}", self.log.display()))
    }

    /// The sum over all label sets of a metric, or `None` if it is not reported. `name` may carry labels:
    /// `outbox_publish_attempts_total{outcome="failed"}`.
    pub async fn metric(&self, name: &str) -> anyhow::Result<Option<f64>> {
        let answer = self.get("/metrics").await?;
        ensure!(
            answer.status == 200,
            "{} answers /metrics with {}",
            self.name,
            answer.status
        );
        Ok(sum_of(&answer.body, name))
    }

    /// Waits until a metric holds; one that is not reported is 0. A service counts a thing after it has done it:
    /// what the database shows may not be counted yet.
    pub async fn until_metric(&self, name: &str, within: Duration, holds: impl Fn(f64) -> bool) -> anyhow::Result<f64> {
        wait::until(&format!("{name} of {}", self.name), within, || async {
            let value = self.metric(name).await?.unwrap_or(0.0);
            Ok(Seen::when(value, |value| holds(*value)))
        })
        .await
    }

    /// Waits until the log has a line with this text.
    pub async fn until_logged(&self, text: &str, within: Duration) -> anyhow::Result<()> {
        wait::until(&format!("{} to log {text}", self.name), within, || async {
            Ok(if self.has_logged(text)? {
                Seen::Yes(())
            } else {
                Seen::NotYet("not logged".to_owned())
            })
        })
        .await
    }

    /// SIGTERM, then waits for the exit code.
    pub async fn terminate(self, within: Duration) -> anyhow::Result<i32> {
        self.signal(Signal::Terminate)?;
        self.wait(within).await
    }

    /// Waits until the service has ended by itself.
    pub async fn wait(&self, within: Duration) -> anyhow::Result<i32> {
        let status = self
            .process
            .wait(within)
            .await
            .with_context(|| format!("its log is {}", self.log.display()))?;
        status
            .code()
            .with_context(|| format!("{} was ended by a signal: {status}", self.name))
    }

    /// SIGKILL.
    pub fn kill(self) -> anyhow::Result<()> {
        self.process.kill().map(|_| ())
    }

    /// SIGSTOP: it keeps its connections, leases and open transactions, and does nothing.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::Freeze)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::Thaw)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.process.signal(signal)
    }

    /// Whether it has not ended.
    pub fn is_running(&self) -> anyhow::Result<bool> {
        Ok(self.process.ended()?.is_none())
    }

    /// Resident memory now, in bytes.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most that was ever resident, in bytes.
    pub fn resident_peak_bytes(&self) -> anyhow::Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .with_context(|| format!("read the memory of {}", self.name))?;
        let kilobytes: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse().ok())
            .with_context(|| format!("{} has no {field}", self.name))?;
        Ok(kilobytes * 1024)
    }
}

/// GET of a path from whatever speaks HTTP there.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("connect to {address}"))?;
    // By 1.0, so that the body comes as it is: nobody here takes it out of chunks.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer has a head and a body")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Answer {
        status: status.context("the answer has a status")?,
        body: body.to_owned(),
    })
}

fn read_address(file: &Path) -> Seen<SocketAddr> {
    match fs::read_to_string(file) {
        Ok(text) => match text.trim().parse() {
            Ok(address) => Seen::Yes(address),
            Err(_) => Seen::NotYet(format!("the address file says {text:?}")),
        },
        Err(error) => Seen::NotYet(format!("no address file: {error}")),
    }
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let mut lines: Vec<_> = text.lines().rev().take(5).collect();
    lines.reverse();
    lines.join("\n")
}

/// The sum over all label sets of a metric, as [`Running::metric`] says, of a text of metrics.
pub fn sum_of(metrics: &str, name: &str) -> Option<f64> {
    let (name, labels) = name
        .split_once('{')
        .map_or((name, ""), |(name, labels)| (name, labels.trim_end_matches('}')));
    let values = metrics.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, has) = series.split_once('{').unwrap_or((series, ""));
        let is_wanted = found == name && labels.split(',').all(|label| has.contains(label));
        is_wanted.then(|| value.parse::<f64>().ok()).flatten()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

/// Fails unless the service ended with this code: 0 drained, 1 fatal, 2 configuration refused.
pub fn expect_code(name: &str, code: i32, expected: i32) -> anyhow::Result<()> {
    if code != expected {
        bail!("{name} ended with {code}, expected {expected}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::sum_of;

    #[test]
    fn a_metric_is_summed_over_the_label_sets_that_match() {
        let metrics = "# HELP a_total x\na_total{k=\"1\",o=\"x\"} 2\na_total{k=\"2\",o=\"y\"} 3\nb 7\n";
        assert_eq!(sum_of(metrics, "a_total"), Some(5.0));
        assert_eq!(sum_of(metrics, "a_total{k=\"2\"}"), Some(3.0));
        assert_eq!(sum_of(metrics, "b"), Some(7.0));
        assert_eq!(sum_of(metrics, "c"), None);
    }
}
