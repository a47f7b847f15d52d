//! The processes on stage: started, watched, killed, frozen.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::children::Signal;
use harness::wait::{self, Seen};
use harness::{Running, Service};

/// How long a start, a take-over or a drain may take on a busy machine.
const CHANGE_WITHIN: Duration = Duration::from_secs(60);

/// Buckets that a publisher holds.
pub(crate) const BUCKETS_HELD: &str = "outbox_buckets_held";
/// Partitions that a triage instance reads.
pub(crate) const PARTITIONS_HELD: &str = "triage_assigned_partitions";

/// The services that run now, and what is remembered of those that ran.
#[derive(Debug, Default)]
pub(crate) struct Cast {
    running: Mutex<BTreeMap<String, Arc<Running>>>,
    memory: Mutex<Memory>,
}

/// What a process takes along when it is killed.
#[derive(Debug, Default)]
struct Memory {
    /// Most bytes that were ever resident, by name.
    resident: BTreeMap<String, u64>,
    /// Duplicates recognised, by process id.
    suppressed: HashMap<u32, f64>,
}

impl Cast {
    /// Starts a service and waits until it is ready.
    pub(crate) async fn enter(&self, name: &str, service: &Service) -> anyhow::Result<()> {
        let running = service.start().await?;
        running.ready(CHANGE_WITHIN).await?;
        lock(&self.running).insert(name.to_owned(), Arc::new(running));
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(&self, name: &str) -> anyhow::Result<()> {
        let running = lock(&self.running)
            .remove(name)
            .with_context(|| format!("{name} does not run"))?;
        running.signal(Signal::Kill)
    }

    /// SIGSTOP.
    pub(crate) fn freeze(&self, name: &str) -> anyhow::Result<()> {
        self.running(name)?.freeze()
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self, name: &str) -> anyhow::Result<()> {
        self.running(name)?.thaw()
    }

    /// What a service holds now.
    pub(crate) async fn holds(&self, name: &str, metric: &str) -> anyhow::Result<u64> {
        let held = self.running(name)?.metric(metric).await?;
        Ok(held.with_context(|| format!("{name} reports {metric}"))? as u64)
    }

    /// Waits until a service holds `count`, and says how long that took since `since`.
    pub(crate) async fn until_holds(
        &self,
        name: &str,
        metric: &str,
        count: u64,
        since: Instant,
    ) -> anyhow::Result<Duration> {
        let what = format!("{name} to have {metric} = {count}");
        wait::until(&what, CHANGE_WITHIN, || async {
            Ok(Seen::when(self.holds(name, metric).await?, |held| *held == count))
        })
        .await?;
        Ok(since.elapsed())
    }

    /// SIGTERM to all, and waits until each has drained and ended with 0.
    pub(crate) async fn exit(&self) -> anyhow::Result<()> {
        let leaving = std::mem::take(&mut *lock(&self.running));
        for running in leaving.values() {
            running.signal(Signal::Terminate)?;
        }
        for (name, running) in leaving {
            let code = running.wait(CHANGE_WITHIN).await?;
            ensure!(
                code == 0,
                "{name} ended with {code}; its log is {}",
                running.log().display()
            );
        }
        Ok(())
    }

    /// Looks at memory and counters of everybody who runs. A process that was just killed has no answer.
    pub(crate) async fn look(&self) {
        let all: Vec<_> = lock(&self.running)
            .iter()
            .map(|(name, running)| (name.clone(), Arc::clone(running)))
            .collect();
        for (name, running) in all {
            if let Ok(bytes) = running.resident_peak_bytes() {
                let mut memory = lock(&self.memory);
                let most = memory.resident.entry(name.clone()).or_default();
                *most = bytes.max(*most);
            }
            if name.starts_with("triage")
                && let Ok(Some(count)) = running.metric("triage_duplicates_total").await
            {
                lock(&self.memory).suppressed.insert(running.pid(), count);
            }
        }
    }

    /// Duplicates recognised so far, those of killed instances included, as far as they were seen.
    pub(crate) fn suppressed(&self) -> u64 {
        lock(&self.memory).suppressed.values().sum::<f64>() as u64
    }

    /// Most bytes resident of the services whose name begins so.
    pub(crate) fn resident(&self, prefix: &str) -> u64 {
        let memory = lock(&self.memory);
        memory
            .resident
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(_, bytes)| *bytes)
            .max()
            .unwrap_or(0)
    }

    fn running(&self, name: &str) -> anyhow::Result<Arc<Running>> {
        lock(&self.running)
            .get(name)
            .cloned()
            .with_context(|| format!("{name} does not run"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
