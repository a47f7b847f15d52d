//! A server as a process of this machine, from local binaries.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail, ensure};

use super::{START_WITHIN, STOP_WITHIN, Stop};
use crate::children::{Guarded, Signal, send};
use crate::folders;
use crate::wait::{self, Seen};

/// A server's folder, and its process while it runs.
#[derive(Debug)]
pub(super) struct Process {
    binaries: PathBuf,
    data: PathBuf,
    log: PathBuf,
    port: u16,
    user: Option<ServerUser>,
    settings: BTreeMap<String, String>,
    process: Mutex<Option<Guarded>>,
}

/// The account that the server runs as when we are root, which Postgres refuses.
#[derive(Debug, Clone, Copy)]
struct ServerUser {
    uid: u32,
    gid: u32,
}

impl Process {
    /// Makes the folder and the database in it; the server is not started.
    pub(super) async fn new(name: &str, port: u16, mut settings: BTreeMap<String, String>) -> anyhow::Result<Self> {
        let binaries = local_binaries().context(
            "no Postgres server binaries in /usr/lib/postgresql/*/bin or PATH; `.ci/install postgres` installs them",
        )?;
        let user = ServerUser::needed()?;
        let root = folders::data(name)?;
        if let Some(user) = user {
            chown(&root, Some(user.uid), Some(user.gid)).context("give the data folder to user postgres")?;
        }
        for (key, value) in [("listen_addresses", "127.0.0.1"), ("unix_socket_directories", "")] {
            settings.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
        let made = Self {
            binaries,
            data: root.join("data"),
            log: folders::logs()?.join(format!("{name}.log")),
            port,
            user,
            settings,
            process: Mutex::new(None),
        };
        made.init().await?;
        Ok(made)
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    pub(super) fn spawn(&self) -> anyhow::Result<()> {
        let mut command = self.command("postgres")?;
        command.arg("-D").arg(&self.data).arg("-p").arg(self.port.to_string());
        for (key, value) in &self.settings {
            command.arg("-c").arg(format!("{key}={value}"));
        }
        // SIGQUIT lets the server take its sessions along; SIGKILL would leave them behind for a while.
        let process = Guarded::spawn("Postgres", command, Signal::Quit)?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        Ok(())
    }

    pub(super) fn pid(&self) -> Option<u32> {
        let held = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map(Guarded::pid)
    }

    pub(super) fn ended(&self) -> anyhow::Result<Option<String>> {
        let held = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = held.as_ref().map(Guarded::ended).transpose()?.flatten();
        Ok(ended.map(|status| status.to_string()))
    }

    pub(super) async fn stop(&self, how: Stop) -> anyhow::Result<()> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        let process = process.context("Postgres does not run")?;
        match how {
            Stop::Fast => process.signal(Signal::Interrupt)?,
            Stop::Crash => process.signal(Signal::Quit)?,
            Stop::Kill => kill_family(process.pid()).await?,
        }
        process.wait(STOP_WITHIN).await?;
        Ok(())
    }

    pub(super) fn freeze_process(&self, pid: u32) -> anyhow::Result<()> {
        let held = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let process = held.as_ref().context("Postgres does not run")?;
        ensure!(
            children_of(process.pid()).contains(&pid),
            "{pid} is no process of this server"
        );
        Ok(send(pid, Signal::Freeze)?)
    }

    async fn init(&self) -> anyhow::Result<()> {
        let mut command = self.command("initdb")?;
        command.args([
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
            "-D",
        ]);
        command.arg(&self.data);
        let status = Guarded::spawn("initdb", command, Signal::Kill)?
            .wait(START_WITHIN)
            .await?;
        ensure!(
            status.success(),
            "initdb ended with {status}; its log is {}",
            self.log.display()
        );
        Ok(())
    }

    fn command(&self, binary: &str) -> anyhow::Result<Command> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("open {}", self.log.display()))?;
        let mut command = Command::new(self.binaries.join(binary));
        command
            .current_dir("/")
            .env("LC_ALL", "C")
            .stdin(std::process::Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        if let Some(ServerUser { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        Ok(command)
    }
}

/// The folder of initdb and postgres on this machine, the newest version first.
pub(super) fn local_binaries() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by(|a, b| b.cmp(a));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    versions
        .into_iter()
        .map(|(_, folder)| folder)
        .chain(std::env::split_paths(&on_path))
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

/// Gives a file to the account that our servers run as: of keys, Postgres takes only its own.
pub(super) fn give(file: &Path) -> anyhow::Result<()> {
    if let Some(user) = ServerUser::needed()? {
        chown(file, Some(user.uid), Some(user.gid)).with_context(|| format!("give {} away", file.display()))?;
    }
    Ok(())
}

impl ServerUser {
    /// The account `postgres` if we are root, nothing otherwise.
    fn needed() -> anyhow::Result<Option<Self>> {
        if fs::metadata("/proc/self").context("read /proc")?.uid() != 0 {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
        let account = accounts.lines().find_map(|line| {
            let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
            Some(Self {
                uid: fields.next()?.parse().ok()?,
                gid: fields.next()?.parse().ok()?,
            })
        });
        match account {
            Some(account) => Ok(Some(account)),
            None => bail!("Postgres does not run as root, and there is no account `postgres` to run it as"),
        }
    }
}

/// SIGKILL to the server and its sessions. It is frozen first, so that it starts none while they are
/// listed; and all are waited for, since the next server refuses to start beside one that is left.
async fn kill_family(server: u32) -> anyhow::Result<()> {
    send(server, Signal::Freeze).context("freeze Postgres")?;
    let sessions = children_of(server);
    send(server, Signal::Kill).context("kill Postgres")?;
    for session in &sessions {
        // A session may have ended since it was listed.
        let _ = send(*session, Signal::Kill);
    }
    let left = || async {
        let alive: Vec<u32> = sessions.iter().copied().filter(|pid| is_alive(*pid)).collect();
        Ok(Seen::when(alive, Vec::is_empty))
    };
    wait::until("the end of every session", STOP_WITHIN, left).await?;
    Ok(())
}

/// Whether a process still runs: one that has ended and waits to be reaped does not.
fn is_alive(pid: u32) -> bool {
    stat_of(pid).is_some_and(|fields| !fields.starts_with(['Z', 'X']))
}

/// What `/proc` says of a process behind its name: state, parent, and more.
fn stat_of(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // "pid (name) state ppid ...": the name may hold spaces and parentheses.
    stat.rsplit_once(") ").map(|(_, fields)| fields.to_owned())
}

fn children_of(parent: u32) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| stat_of(*pid).and_then(|fields| fields.split(' ').nth(1)?.parse().ok()) == Some(parent))
        .collect()
}
