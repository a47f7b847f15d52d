//! A private Postgres from local binaries, which tests may restart, crash and freeze.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};

use crate::children::{Guarded, Signal, send};
use crate::wait::{self, Seen};
use crate::{folders, ports};

/// How long initdb or a start may take on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How long a stop may take; a fast stop waits for the checkpoint.
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// A Postgres server of our own. Its folder and its processes end with us.
#[derive(Debug)]
pub struct Postgres {
    binaries: PathBuf,
    data: PathBuf,
    log: PathBuf,
    port: u16,
    user: Option<ServerUser>,
    settings: BTreeMap<String, String>,
    process: Mutex<Option<Guarded>>,
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, everything is written: no recovery follows.
    Fast,
    /// All processes end at once. The next start recovers from the log; commits that were not waited
    /// for (`synchronous_commit = off`) may be gone.
    Crash,
    /// SIGKILL to the server and all its sessions.
    Kill,
}

/// The account that the server runs as when we are root, which Postgres refuses.
#[derive(Debug, Clone, Copy)]
struct ServerUser {
    uid: u32,
    gid: u32,
}

impl Postgres {
    /// The folder of initdb and postgres on this machine, the newest version first.
    pub fn local_binaries() -> Option<PathBuf> {
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

    /// Makes and starts a server; `settings` are those of postgresql.conf. `fsync` stays on unless they say otherwise.
    pub async fn start_new(name: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let binaries = Self::local_binaries().context(
            "no Postgres server binaries in /usr/lib/postgresql/*/bin or PATH; `.ci/install postgres` installs them",
        )?;
        let user = ServerUser::needed()?;
        let root = folders::data(name)?;
        if let Some(user) = user {
            chown(&root, Some(user.uid), Some(user.gid)).context("give the data folder to user postgres")?;
        }
        let mut settings: BTreeMap<_, _> = settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        for (key, value) in [
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", ""),
            ("max_connections", "200"),
            ("shared_buffers", "128MB"),
            ("log_line_prefix", "%m [%p] %a %x "),
        ] {
            settings.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
        let server = Self {
            binaries,
            data: root.join("data"),
            log: folders::logs()?.join(format!("{name}.log")),
            port: ports::free()?,
            user,
            settings,
            process: Mutex::new(None),
        };
        server.init().await?;
        server.start().await?;
        Ok(server)
    }

    /// Starts the server again after [`Postgres::stop`], at the same port, and waits until it answers.
    pub async fn start(&self) -> anyhow::Result<()> {
        let mut command = self.command("postgres")?;
        command.arg("-D").arg(&self.data).arg("-p").arg(self.port.to_string());
        for (key, value) in &self.settings {
            command.arg("-c").arg(format!("{key}={value}"));
        }
        // SIGQUIT lets the server take its sessions along; SIGKILL would leave them behind for a while.
        let process = Guarded::spawn("Postgres", command, Signal::Quit)?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        wait::until("Postgres to answer", START_WITHIN, || self.answers())
            .await
            .with_context(|| format!("its log is {}", self.log.display()))
    }

    /// Stops the server and waits for its end.
    pub async fn stop(&self, how: Stop) -> anyhow::Result<()> {
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

    /// Stops and starts the server.
    pub async fn restart(&self, how: Stop) -> anyhow::Result<()> {
        self.stop(how).await?;
        self.start().await
    }

    /// SIGSTOP or SIGCONT to the server and all its sessions: a machine that stands still.
    pub fn freeze(&self, frozen: bool) -> anyhow::Result<()> {
        let held = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let process = held.as_ref().context("Postgres does not run")?;
        let signal = if frozen { Signal::Freeze } else { Signal::Thaw };
        process.signal(signal)?;
        for session in children_of(process.pid()) {
            // A session may have ended since it was listed.
            let _ = send(session, signal);
        }
        Ok(())
    }

    /// SIGSTOP to one process of the server, by the pid that `pg_stat_activity` shows; a kill of the server ends it.
    pub fn freeze_process(&self, pid: u32) -> anyhow::Result<()> {
        let held = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let process = held.as_ref().context("Postgres does not run")?;
        ensure!(
            children_of(process.pid()).contains(&pid),
            "{pid} is no process of this server"
        );
        Ok(send(pid, Signal::Freeze)?)
    }

    /// Address of a database of this server.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Terminates the sessions whose `application_name` is like `pattern`; how many there were.
    pub async fn terminate_sessions(&self, pattern: &str) -> anyhow::Result<u64> {
        let mut admin = connect(&self.url("postgres")).await?;
        let ended = sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity \
             where pid <> pg_backend_pid() and application_name like $1",
        )
        .bind(pattern)
        .execute(&mut admin)
        .await?;
        admin.close().await?;
        Ok(ended.rows_affected())
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

    /// One look at a starting server. The folder is compared, since another server may hold the port.
    async fn answers(&self) -> anyhow::Result<Seen<()>> {
        if let Some(process) = &*self.process.lock().unwrap_or_else(PoisonError::into_inner)
            && let Some(status) = process.ended()?
        {
            return Ok(Seen::NotYet(format!("the server has ended with {status}")));
        }
        let mut connection = connect(&self.url("postgres")).await?;
        let folder: String = sqlx::query_scalar("show data_directory")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        if Path::new(&folder) != self.data {
            bail!("port {} is held by another Postgres, of {folder}", self.port);
        }
        Ok(Seen::Yes(()))
    }
}

/// Opens a connection to `url`.
pub async fn connect(url: &str) -> anyhow::Result<PgConnection> {
    let options: PgConnectOptions = url.parse().context("parse the database address")?;
    options
        .application_name("harness")
        .connect()
        .await
        .context("connect to Postgres")
}

/// Gives a file to the account that our servers run as: of keys, Postgres takes only its own.
pub fn give(file: &Path) -> anyhow::Result<()> {
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
