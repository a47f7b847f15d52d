//! The four services as processes, and somebody who starts again what has ended by itself, as a machine's
//! restart policy does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::children::Signal;
use harness::wait::{self, Seen};
use harness::{Running, Service};
use tokio::task::JoinHandle;

use crate::plan::TRIAGE;
use crate::scene::NAMES;

/// How long a start or a drain may take on a busy machine.
const CHANGE_WITHIN: Duration = Duration::from_secs(60);
/// Pause between two looks at who has ended.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Who runs.
#[derive(Debug)]
pub(crate) struct Crew {
    services: Vec<Service>,
    running: Mutex<Vec<Option<Arc<Running>>>>,
    /// One line for each that has ended without being told to.
    ended: Mutex<Vec<String>>,
}

/// Restarts until it is dropped.
#[derive(Debug)]
pub(crate) struct Supervisor(JoinHandle<()>);

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Crew {
    /// Starts all and waits until they are ready.
    pub(crate) async fn start(services: Vec<Service>) -> anyhow::Result<Arc<Self>> {
        let crew = Self {
            running: Mutex::new(services.iter().map(|_| None).collect()),
            services,
            ended: Mutex::default(),
        };
        for place in 0..crew.services.len() {
            crew.enter(place).await?;
        }
        for place in 0..crew.services.len() {
            crew.ready(place).await?;
        }
        Ok(Arc::new(crew))
    }

    /// Begins to start again whoever ends by itself.
    pub(crate) fn supervise(self: &Arc<Self>) -> Supervisor {
        let crew = Arc::clone(self);
        Supervisor(tokio::spawn(async move {
            loop {
                for place in 0..crew.services.len() {
                    crew.restart_if_ended(place).await;
                }
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        }))
    }

    async fn restart_if_ended(&self, place: usize) {
        let Some(running) = self.at(place) else { return };
        if running.is_running().unwrap_or(true) {
            return;
        }
        let code = running.wait(CHANGE_WITHIN).await;
        let how = code.map_or_else(|error| format!("{error:#}"), |code| format!("exit code {code}"));
        let line = format!(
            "{} ended with {how}; its log is {}",
            NAMES[place],
            running.log().display()
        );
        println!("       {line}");
        lock(&self.ended).push(line);
        // It is tried again at the next look: as long as nobody stands there, the place is not looked at.
        if let Err(error) = self.enter(place).await {
            println!("       {} could not be started again: {error:#}", NAMES[place]);
        }
    }

    /// Starts the service of a place; it may not be ready yet.
    pub(crate) async fn enter(&self, place: usize) -> anyhow::Result<()> {
        let running = self.services[place].start().await?;
        lock(&self.running)[place] = Some(Arc::new(running));
        Ok(())
    }

    /// Waits until the service of a place is ready.
    pub(crate) async fn ready(&self, place: usize) -> anyhow::Result<()> {
        self.running(place)?.ready(CHANGE_WITHIN).await
    }

    /// Waits until the service of a place owns partitions or buckets: without any, its death would be none.
    pub(crate) async fn until_it_owns_some(&self, place: usize) -> anyhow::Result<()> {
        let owned = if TRIAGE.contains(&place) {
            "triage_assigned_partitions"
        } else {
            "outbox_buckets_held"
        };
        wait::until(&format!("{} to own something", NAMES[place]), CHANGE_WITHIN, || async {
            let count = self.running(place)?.metric(owned).await?;
            Ok(Seen::when(count.unwrap_or_default(), |count| *count > 0.0))
        })
        .await?;
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(&self, place: usize) -> anyhow::Result<()> {
        let running = lock(&self.running)[place].take();
        running
            .with_context(|| format!("{} does not run", NAMES[place]))?
            .signal(Signal::Kill)
    }

    /// The service of a place.
    pub(crate) fn running(&self, place: usize) -> anyhow::Result<Arc<Running>> {
        self.at(place).with_context(|| format!("{} does not run", NAMES[place]))
    }

    /// One line for each service that has ended without being told to.
    pub(crate) fn ended(&self) -> Vec<String> {
        lock(&self.ended).clone()
    }

    /// What readiness and the publishers' gauges say of everybody, for people who look for a cause.
    pub(crate) async fn states(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (place, name) in NAMES.iter().enumerate() {
            let Some(running) = self.at(place) else {
                lines.push(format!("{name}: does not run"));
                continue;
            };
            for path in ["/readyz", "/metrics"] {
                let told = match running.get(path).await {
                    Ok(answer) => format!("{} {}", answer.status, answer.body),
                    Err(error) => format!("{error:#}"),
                };
                let is_told =
                    |line: &&str| path == "/readyz" || line.starts_with("outbox_") && !line.contains("_bucket{");
                lines.extend(told.lines().filter(is_told).map(|line| format!("{name}: {line}")));
            }
        }
        lines
    }

    /// SIGTERM to all, and waits until each has drained and ended with 0.
    pub(crate) async fn exit(&self) -> anyhow::Result<()> {
        let leaving: Vec<_> = lock(&self.running).iter_mut().filter_map(Option::take).collect();
        for running in &leaving {
            running.signal(Signal::Terminate)?;
        }
        for running in leaving {
            let code = running.wait(CHANGE_WITHIN).await?;
            let (name, log) = (running.name(), running.log().display());
            ensure!(code == 0, "{name} ended with {code}; its log is {log}");
        }
        Ok(())
    }

    fn at(&self, place: usize) -> Option<Arc<Running>> {
        lock(&self.running)[place].clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
