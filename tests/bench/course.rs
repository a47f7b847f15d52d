//! What somebody has done in a round, by row.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use harness::Running;
use serde::Serialize;

use crate::cpu;
use crate::site::{Account, Site};

/// Pause between two looks at what is being worked on: 1 % of a core.
const LOOK: Duration = Duration::from_millis(10);
/// How long nothing may come before the work counts as stopped.
const STANDSTILL: Duration = Duration::from_secs(30);

/// One round of one contestant.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Course {
    /// Rows a second.
    pub per_second: f64,
    /// CPU of a row, where the servers are processes of ours.
    pub cpu: Option<Cpu>,
    /// Bytes of write-ahead log of a row.
    pub wal_bytes: f64,
}

/// CPU microseconds of a row by who used them.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cpu {
    /// Whoever is measured.
    pub own: f64,
    /// All processes of Postgres.
    pub postgres: f64,
    /// The broker.
    pub broker: f64,
}

impl Cpu {
    /// All of them.
    pub fn total(&self) -> f64 {
        self.own + self.postgres + self.broker
    }
}

/// A moment: time and accounts.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    at: Instant,
    account: Account,
    own_us: f64,
}

impl Moment {
    /// Now, with what these processes have used.
    ///
    /// # Errors
    /// If one of them is gone, or the server does not answer.
    pub async fn now(site: &Site, own: &[u32]) -> anyhow::Result<Self> {
        let at = Instant::now();
        let mut own_us = 0.0;
        for pid in own {
            own_us += cpu::used_by(*pid)?.as_secs_f64() * 1e6;
        }
        Ok(Self {
            at,
            account: site.account().await?,
            own_us,
        })
    }

    /// What was done since then: `rows` within the time until `ended`, CPU and log until `settled`.
    pub fn until(&self, ended: Instant, settled: &Self, rows: u64) -> Course {
        let rows = rows as f64;
        let used = |now: Option<f64>, then: Option<f64>| Some((now? - then?) / rows);
        let postgres = used(settled.account.postgres_us, self.account.postgres_us);
        let broker = used(settled.account.broker_us, self.account.broker_us);
        Course {
            per_second: rows / ended.duration_since(self.at).as_secs_f64(),
            cpu: postgres.zip(broker).map(|(postgres, broker)| Cpu {
                own: (settled.own_us - self.own_us) / rows,
                postgres,
                broker,
            }),
            wal_bytes: (settled.account.wal_bytes - self.account.wal_bytes) / rows,
        }
    }

    /// The time of it.
    pub fn at(&self) -> Instant {
        self.at
    }
}

/// Waits from the first of `rows` until the last, then until `settled` says so: how a process that begins by itself
/// is measured. `done` says how many there are.
///
/// # Errors
/// If nothing moves for half a minute.
pub async fn watch(
    site: &Site,
    own: &[&Running],
    rows: u64,
    done: impl AsyncFn() -> anyhow::Result<u64>,
    settled: impl AsyncFn() -> anyhow::Result<bool>,
) -> anyhow::Result<Course> {
    let pids: Vec<u32> = own.iter().map(|running| running.pid()).collect();
    let first = reach(&done, 1).await?;
    ensure!(
        first < rows,
        "all {rows} were done at the first look: more of them are needed"
    );
    let began = Moment::now(site, &pids).await?;
    reach(&done, rows).await?;
    let ended = Instant::now();
    let deadline = ended + STANDSTILL;
    while !settled().await? {
        if Instant::now() > deadline {
            bail!("{rows} rows are done and not settled after {STANDSTILL:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
    let end = Moment::now(site, &pids).await?;
    Ok(began.until(ended, &end, rows - first))
}

/// Waits until so many are done, and says how many there are then.
async fn reach(done: impl AsyncFn() -> anyhow::Result<u64>, rows: u64) -> anyhow::Result<u64> {
    let (mut seen, mut moved) = (0, Instant::now());
    loop {
        let now = done().await?;
        if now >= rows {
            return Ok(now);
        }
        if now != seen {
            (seen, moved) = (now, Instant::now());
        } else if moved.elapsed() > STANDSTILL {
            bail!("{now} of {rows} are done, and nothing has come for {STANDSTILL:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
}
