//! A private Postgres, which tests may restart, crash and freeze: a process from local binaries or a container.

#[cfg_attr(not(feature = "containers"), path = "postgres/absent.rs")]
mod container;
mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};

use crate::docker::Container;
use crate::ports;
use crate::stack::{Home, unique};
use crate::wait::{self, Seen};

use container::InContainer;
use process::Process;

/// How long initdb or a start may take on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How long a stop may take; a fast stop waits for the checkpoint.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// Where a server listens inside its container.
const PORT_INSIDE: u16 = 5432;

/// A Postgres server of our own. Whatever belongs to it ends with us.
#[derive(Debug)]
pub struct Postgres {
    /// What it calls itself, by which it is told from another server that holds the port.
    cluster: String,
    port: u16,
    life: Life,
}

/// How a server lives.
#[derive(Debug)]
enum Life {
    Process(Process),
    Container(InContainer),
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

impl Postgres {
    /// The folder of initdb and postgres on this machine, the newest version first.
    pub fn local_binaries() -> Option<PathBuf> {
        process::local_binaries()
    }

    /// Makes and starts a server where this run has its servers; `settings` are those of postgresql.conf.
    /// `fsync` stays on unless they say otherwise.
    pub async fn start_new(name: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_in(Home::from_environment()?, name, settings).await
    }

    /// The same in a given home.
    pub async fn start_in(home: Home, name: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let (cluster, settings) = named(name, settings);
        let port = ports::free()?;
        let life = match home {
            Home::Processes => {
                let process = Process::new(name, port, settings).await?;
                process.spawn()?;
                Life::Process(process)
            }
            Home::Containers => Life::Container(InContainer::start_new(None, name, port, settings).await?),
        };
        Self::once_it_answers(cluster, port, life).await
    }

    /// The same in a container on a given network, which other containers reach by [`Postgres::private_url`].
    pub async fn start_on(network: &str, name: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let (cluster, settings) = named(name, settings);
        let port = ports::free()?;
        let life = Life::Container(InContainer::start_new(Some(network), name, port, settings).await?);
        Self::once_it_answers(cluster, port, life).await
    }

    async fn once_it_answers(cluster: String, port: u16, life: Life) -> anyhow::Result<Self> {
        let server = Self { cluster, port, life };
        server.until_it_answers().await?;
        Ok(server)
    }

    /// Starts the server again after [`Postgres::stop`], at the same port, and waits until it answers.
    pub async fn start(&self) -> anyhow::Result<()> {
        match &self.life {
            Life::Process(process) => process.spawn()?,
            Life::Container(server) => server.container().start().await?,
        }
        self.until_it_answers().await
    }

    /// Stops the server and waits for its end.
    pub async fn stop(&self, how: Stop) -> anyhow::Result<()> {
        match &self.life {
            Life::Process(process) => process.stop(how).await,
            Life::Container(server) => server.stop(how).await,
        }
    }

    /// Stops and starts the server.
    pub async fn restart(&self, how: Stop) -> anyhow::Result<()> {
        self.stop(how).await?;
        self.start().await
    }

    /// SIGSTOP to one process of the server, by the pid that `pg_stat_activity` shows; a kill of the server ends it.
    pub async fn freeze_process(&self, pid: u32) -> anyhow::Result<()> {
        match &self.life {
            Life::Process(process) => process.freeze_process(pid),
            Life::Container(server) => server.freeze_process(pid).await,
        }
    }

    /// The server's first process, whose children the others are, while it runs as a process of ours.
    pub fn pid(&self) -> Option<u32> {
        match &self.life {
            Life::Process(process) => process.pid(),
            Life::Container(_) => None,
        }
    }

    /// Address of a database of this server.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Address of a database of this server for other containers on its network.
    pub fn private_url(&self, database: &str) -> Option<String> {
        let name = self.container()?.name();
        Some(format!("postgres://postgres@{name}:{}/{database}", PORT_INSIDE))
    }

    /// Its container, for what only those have, if it lives in one.
    pub fn container(&self) -> Option<&Container> {
        match &self.life {
            Life::Process(_) => None,
            Life::Container(server) => Some(server.container()),
        }
    }

    /// Makes a new container on the same volume, and waits until it answers.
    pub async fn renew(&self) -> anyhow::Result<()> {
        let container = self.container().context("the server does not live in a container")?;
        container.renew().await?;
        self.until_it_answers().await
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's log.
    pub fn log(&self) -> &Path {
        match &self.life {
            Life::Process(process) => process.log(),
            Life::Container(server) => server.container().log(),
        }
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

    /// Waits until it answers.
    pub async fn until_it_answers(&self) -> anyhow::Result<()> {
        wait::until("Postgres to answer", START_WITHIN, || self.answers())
            .await
            .with_context(|| format!("its log is {}", self.log().display()))
    }

    /// One look at a starting server. Its name is compared, since another server may hold the port.
    async fn answers(&self) -> anyhow::Result<Seen<()>> {
        let ended = match &self.life {
            Life::Process(process) => process.ended()?,
            Life::Container(server) => server.ended().await?,
        };
        if let Some(how) = ended {
            return Ok(Seen::NotYet(format!("the server has ended with {how}")));
        }
        let mut connection = connect(&self.url("postgres")).await?;
        let cluster: String = sqlx::query_scalar("show cluster_name")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        if cluster != self.cluster {
            bail!("port {} is held by another Postgres, {cluster:?}", self.port);
        }
        Ok(Seen::Yes(()))
    }
}

/// What a server calls itself, and its settings: ours, unless others were asked for.
fn named(name: &str, asked: &[(&str, &str)]) -> (String, BTreeMap<String, String>) {
    let cluster = unique(name);
    let ours = [
        ("cluster_name", cluster.as_str()),
        ("max_connections", "200"),
        ("shared_buffers", "128MB"),
        ("log_line_prefix", "%m [%p] %a %x "),
    ];
    let settings = ours.iter().chain(asked); // the later one counts
    let settings = settings.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    (cluster.clone(), settings.collect())
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
pub async fn give(file: &Path) -> anyhow::Result<()> {
    match Home::from_environment()? {
        Home::Processes => process::give(file),
        Home::Containers => container::give(file).await,
    }
}
