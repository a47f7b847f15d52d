//! A broker as a process of this machine, from Kafka's published jars.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::node::{START_WITHIN, Seat};
use super::properties::{self, Listeners};
use super::{Kafka, KafkaOptions};
use crate::children::{Guarded, Signal};
use crate::folders;

/// How long an orderly stop may take: the node hands its partitions over first.
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// A broker's folder, and its process while it runs.
#[derive(Debug)]
pub(super) struct Process {
    id: usize,
    folder: PathBuf,
    log: PathBuf,
    for_speed: bool,
    process: Mutex<Option<Guarded>>,
}

impl Process {
    /// Makes and formats the folder; the broker is not started.
    pub(super) async fn new(
        seat: &Seat,
        controller: u16,
        voters: &str,
        options: &KafkaOptions,
    ) -> anyhow::Result<Self> {
        let made = Self {
            id: seat.id,
            folder: folders::data(&seat.name)?,
            log: folders::logs()?.join(format!("{}.log", seat.name)),
            for_speed: options.for_speed,
            process: Mutex::new(None),
        };
        let log_folder = made.folder.join("log").display().to_string();
        let properties = properties::of(seat.id, voters, &listeners(seat, controller), &log_folder, options);
        let lines = properties.iter().map(|(name, value)| format!("{name}={value}\n"));
        fs::write(made.properties_file(), lines.collect::<String>()).context("write server.properties")?;
        made.format(&seat.cluster).await?;
        Ok(made)
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    pub(super) fn kill(&self) -> anyhow::Result<()> {
        self.take()?.kill()?;
        Ok(())
    }

    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        let process = self.take()?;
        process.signal(Signal::Terminate)?;
        process.wait(STOP_WITHIN).await?;
        Ok(())
    }

    /// SIGSTOP.
    pub(super) fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::Freeze)
    }

    /// SIGCONT.
    pub(super) fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::Thaw)
    }

    pub(super) fn ended(&self) -> anyhow::Result<Option<String>> {
        let held = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = held.as_ref().map(Guarded::ended).transpose()?.flatten();
        Ok(ended.map(|status| status.to_string()))
    }

    pub(super) fn pid(&self) -> Option<u32> {
        let held = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map(Guarded::pid)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let held = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref()
            .with_context(|| format!("Kafka node {} does not run", self.id))?
            .signal(signal)
    }

    fn take(&self) -> anyhow::Result<Guarded> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        process.with_context(|| format!("Kafka node {} does not run", self.id))
    }

    async fn format(&self, cluster: &str) -> anyhow::Result<()> {
        let mut command = self.java()?;
        command
            .args(["-XX:TieredStopAtLevel=1", "-cp"])
            .arg(class_path())
            .arg("kafka.tools.StorageTool");
        command
            .args(["format", "-t", cluster, "-c"])
            .arg(self.properties_file());
        let status = Guarded::spawn("Kafka's StorageTool", command, Signal::Kill)?
            .wait(START_WITHIN)
            .await?;
        ensure!(
            status.success(),
            "Kafka's StorageTool ended with {status}; its log is {}",
            self.log.display()
        );
        Ok(())
    }

    pub(super) fn spawn(&self) -> anyhow::Result<()> {
        let mut command = self.java()?;
        if self.for_speed {
            command.args(["-Xms512m", "-Xmx1g"]);
        } else {
            command.args(["-Xms256m", "-Xmx768m", "-XX:TieredStopAtLevel=1"]);
        }
        command
            .args(["-XX:+UseSerialGC", "-Xshare:auto", "-cp"])
            .arg(class_path());
        command.arg("kafka.Kafka").arg(self.properties_file());
        let process = Guarded::spawn(&format!("Kafka node {}", self.id), command, Signal::Kill)?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        Ok(())
    }

    fn java(&self) -> anyhow::Result<Command> {
        let java = find_on_path("java").context("no java on the PATH; `.ci/install kafka` installs it")?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("open {}", self.log.display()))?;
        let mut command = Command::new(java);
        // A killed Java leaves its unpacked native libraries where it put them; they go with the folder.
        let mut temporary = OsString::from("-Djava.io.tmpdir=");
        temporary.push(&self.folder);
        command.arg(temporary).current_dir(&self.folder);
        command.stdin(std::process::Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    fn properties_file(&self) -> PathBuf {
        self.folder.join("server.properties")
    }
}

fn listeners(seat: &Seat, controller: u16) -> Listeners {
    let on = |port: u16| format!("127.0.0.1:{port}");
    let mut all = vec![
        ("PLAINTEXT".to_owned(), on(seat.port), Some(on(seat.port))),
        ("CONTROLLER".to_owned(), on(controller), None),
    ];
    for (number, hop) in seat.detours.iter().enumerate() {
        all.push((format!("VIA{number}"), on(hop.upstream), Some(on(hop.listen))));
    }
    Listeners {
        all,
        between_brokers: "PLAINTEXT",
    }
}

/// Java expands the star itself.
fn class_path() -> PathBuf {
    Kafka::jars().join("*")
}

pub(super) fn find_on_path(binary: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(binary))
        .find(|file| file.is_file())
}
