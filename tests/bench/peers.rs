//! Whoever is measured beside the services: bare clients, which show the limit, and the designs that others have.
//!
//! Each runs as a process of its own, so that its CPU is its own: it says `ready` when everything is prepared, begins
//! at the next line of its input, and says what it has done.

mod locks_held;
mod per_event;
mod pure;
mod row_lease;
mod sender;

use std::io::{BufRead as _, Write as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

pub use sender::RoundTrip;

use crate::course::{Course, Moment};
use crate::site::Site;

/// How long a peer may prepare itself, and how long work.
const WITHIN: Duration = Duration::from_secs(900);

/// Who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Who {
    /// The publisher's statements without a publisher.
    ReadAndSettle,
    /// The triage service's statements, on rows that it wrote.
    Write,
    /// The statements of both services, on rows that they wrote.
    WriteReadAndSettle,
    /// A producer alone.
    Produce,
    /// A consumer alone.
    Consume,
    /// A publisher that leases each row, publishes a batch and settles it in one statement.
    RowLease,
    /// A publisher that holds the locks of its rows while it publishes.
    LocksHeld,
    /// A consumer with one transaction a record.
    PerEvent,
}

/// What it works on.
#[derive(Debug, Clone, Args)]
pub struct Task {
    /// Who works
    #[arg(value_enum)]
    pub who: Who,
    /// The database that is worked on
    #[arg(long, default_value = "")]
    pub database: String,
    /// The database that rows are taken from
    #[arg(long, default_value = "")]
    pub source: String,
    /// The brokers
    #[arg(long, default_value = "")]
    pub brokers: String,
    /// The topic that is written, or read by a consumer
    #[arg(long, default_value = "")]
    pub topic: String,
    /// Rows
    #[arg(long, default_value_t = 0)]
    pub rows: u64,
    /// Rows at a time
    #[arg(long, default_value_t = 500)]
    pub batch: usize,
}

impl Task {
    /// Nothing but who works.
    pub fn of(who: Who) -> Self {
        Self {
            who,
            database: String::new(),
            source: String::new(),
            brokers: String::new(),
            topic: String::new(),
            rows: 0,
            batch: 500,
        }
    }
}

/// What it has done.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Done {
    /// Rows or records.
    pub rows: u64,
    /// From the line that began it to the end.
    pub seconds: f64,
}

/// The whole of a peer's process.
///
/// # Errors
/// If anything fails: a peer has no second attempt.
pub async fn run(task: &Task) -> anyhow::Result<()> {
    match task.who {
        Who::ReadAndSettle => pure::read_and_settle(task).await,
        Who::Write => pure::write(task).await,
        Who::WriteReadAndSettle => pure::write_read_and_settle(task).await,
        Who::Produce => pure::produce(task).await,
        Who::Consume => pure::consume(task),
        Who::RowLease => row_lease::run(task).await,
        Who::LocksHeld => locks_held::run(task).await,
        Who::PerEvent => per_event::run(task).await,
    }
}

/// Says that everything is prepared, and returns when it may begin.
fn wait_for_the_start() -> anyhow::Result<Instant> {
    println!("ready");
    std::io::stdout().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    ensure!(!line.is_empty(), "nobody gave the start");
    Ok(Instant::now())
}

/// Says what was done, and stays until its CPU was read.
fn tell(rows: u64, began: Instant) -> anyhow::Result<()> {
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", serde_json::to_string(&Done { rows, seconds })?);
    std::io::stdout().flush()?;
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

/// A peer that was started.
pub struct Peer {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    /// If it ends before.
    pub async fn start(task: &Task) -> anyhow::Result<Self> {
        let who = task.who.to_possible_value().context("each peer has a name")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["peer", who.get_name()]);
        let texts = [
            ("--database", &task.database),
            ("--source", &task.source),
            ("--brokers", &task.brokers),
            ("--topic", &task.topic),
        ];
        for (name, value) in texts.iter().filter(|(_, value)| !value.is_empty()) {
            command.args([name, value.as_str()]);
        }
        command.args(["--rows", &task.rows.to_string(), "--batch", &task.batch.to_string()]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start a peer")?;
        let input = child.stdin.take().context("a peer has an input")?;
        let output = BufReader::new(child.stdout.take().context("a peer has an output")?).lines();
        let mut peer = Self { child, input, output };
        let said = peer.line().await?;
        ensure!(said == "ready", "a peer said {said:?} instead of being ready");
        Ok(peer)
    }

    /// Lets it work to its end.
    ///
    /// # Errors
    /// If it fails, or does not do all of `rows`.
    pub async fn course(mut self, site: &Site, rows: u64) -> anyhow::Result<Course> {
        let pid = self.child.id().context("the peer has ended")?;
        let began = Moment::now(site, &[pid]).await?;
        self.input.write_all(b"go\n").await?;
        let done: Done = serde_json::from_str(&self.line().await?).context("what a peer has done")?;
        let end = Moment::now(site, &[pid]).await?;
        ensure!(done.rows == rows, "a peer has done {} rows of {rows}", done.rows);
        drop(self.input);
        let status = self.child.wait().await?;
        ensure!(status.success(), "a peer ended with {status}");
        let mut course = began.until(end.at(), &end, rows);
        course.per_second = rows as f64 / done.seconds;
        Ok(course)
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        tokio::time::timeout(WITHIN, self.output.next_line())
            .await
            .with_context(|| format!("a peer said nothing for {WITHIN:?}"))??
            .context("a peer has ended without a word; its error stands above")
    }
}
