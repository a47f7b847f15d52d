//! One container, from its start to its removal.

use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::future::BoxFuture;
use testcontainers::core::logs::LogFrame;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerRequest, Image, ImageExt};
use tokio::runtime::Runtime;

use super::{docker, images, run, watch};
use crate::children::{Guarded, Signal};
use crate::folders;
use crate::stack::unique;

/// How long a start may take on a busy machine, until the server in it says that it is ready.
const START_WITHIN: Duration = Duration::from_secs(120);
/// How long it may take until all of it stands still at once.
const PAUSED_WITHIN: Duration = Duration::from_secs(15);
/// How long the removal may take.
const REMOVE_WITHIN: Duration = Duration::from_secs(30);

/// The library's connections to the engine are driven by the runtime in which they were opened. Were that a
/// test's, they would end with it, and with them what another test asks at that moment.
static LASTING: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("containers")
        .enable_all()
        .build()
        .expect("threads can be started")
});

/// Runs something that keeps a connection to the engine.
pub(super) async fn in_lasting_runtime<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> anyhow::Result<T> {
    Ok(LASTING.spawn(work).await?)
}

/// A container that was started; it is removed when it is dropped.
pub struct Container {
    name: String,
    log: PathBuf,
    make: Box<dyn Fn() -> BoxFuture<'static, anyhow::Result<Held>> + Send + Sync>,
    held: Mutex<Option<Held>>,
    /// Writes the log of the second life and of those after it; the library follows the first alone.
    follower: Mutex<Option<Guarded>>,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The exit code: 128 and the signal, if it was ended by one.
    pub code: i64,
    /// The machine, or its own limit, had no more memory for it.
    pub out_of_memory: bool,
}

/// The library's value, whose drop removes the container.
struct Held {
    id: String,
    value: Option<Box<dyn Send>>,
}

impl Container {
    /// A name that no other container has, of the characters that are allowed in a host's name.
    pub fn name_for(label: &str) -> String {
        unique(label).replace('_', "-")
    }

    /// Starts what is requested, under this name, and waits until it is ready. Its ports are bound to 127.0.0.1.
    pub async fn start_new<I: Image + 'static>(
        name: &str,
        request: impl Fn() -> ContainerRequest<I> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        images::provide().await?;
        run::begin().await?;
        let log = folders::logs()?.join(format!("{name}.log"));
        let (for_name, for_log) = (name.to_owned(), log.clone());
        let container = Self {
            name: name.to_owned(),
            log,
            make: Box::new(move || Box::pin(make(for_name.clone(), for_log.clone(), request()))),
            held: Mutex::new(None),
            follower: Mutex::new(None),
        };
        container.renew().await?;
        Ok(container)
    }

    /// Its name, which is also its host name on a network of its own.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has said.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Removes it, if it is there, and makes a new one in its place: the same request, so the same name, ports
    /// and volumes, and nothing else of what the former one had.
    pub async fn renew(&self) -> anyhow::Result<()> {
        drop(self.held().take());
        let held = (self.make)().await;
        let held = held.with_context(|| format!("start container {}; its log is {}", self.name, self.log.display()))?;
        watch::hold(&held.id, &self.name);
        *self.held() = Some(held);
        Ok(())
    }

    /// Starts it again, at the same ports and with the same data.
    pub async fn start(&self) -> anyhow::Result<()> {
        let since = chrono::Utc::now().to_rfc3339();
        self.ask(&["start"]).await?;
        let log = File::options().append(true).create(true).open(&self.log)?;
        let mut command = Command::new("docker");
        command.args(["logs", "--follow", "--since", &since, &self.id()?]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let follower = Guarded::spawn("docker logs", command, Signal::Kill)?;
        *self.follower.lock().unwrap_or_else(PoisonError::into_inner) = Some(follower);
        Ok(())
    }

    /// SIGKILL to all that runs in it.
    pub async fn kill(&self) -> anyhow::Result<()> {
        watch::ask_for_end(&self.id()?);
        self.ask(&["kill"]).await
    }

    /// Sends a signal to its first process and waits for its end.
    pub async fn end_by(&self, signal: &str, within: Duration) -> anyhow::Result<End> {
        watch::ask_for_end(&self.id()?);
        self.ask(&["kill", "--signal", signal]).await?;
        tokio::time::timeout(within, self.ask(&["wait"]))
            .await
            .with_context(|| format!("container {} still runs {within:?} after SIG{signal}", self.name))??;
        let end = self.ended().await?;
        end.with_context(|| format!("container {} was started again by somebody", self.name))
    }

    /// It stands still with everything it holds.
    pub async fn pause(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            match self.ask(&["pause"]).await {
                // With cgroup v1 a freeze has to meet all tasks of a container at once. runc tries a thousand times
                // within a third of a second, thaws what it has, and leaves it to its caller to ask again
                // (opencontainers/runc#2791 and #4388).
                Err(error) if began.elapsed() < PAUSED_WITHIN && error.to_string().contains("unable to freeze") => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                asked => return asked,
            }
        }
    }

    /// It goes on as if no time had passed.
    pub async fn unpause(&self) -> anyhow::Result<()> {
        self.ask(&["unpause"]).await
    }

    /// Takes it off a network: its connections there neither end nor carry anything, its name is not known.
    pub async fn disconnect(&self, network: &str) -> anyhow::Result<()> {
        docker(&["network", "disconnect", network, &self.id()?]).await?;
        Ok(())
    }

    /// Puts it on a network again, maybe at another address, and under its name.
    pub async fn connect(&self, network: &str) -> anyhow::Result<()> {
        docker(&["network", "connect", "--alias", &self.name, network, &self.id()?]).await?;
        Ok(())
    }

    /// Runs a script in it as its root.
    pub async fn run(&self, script: &str) -> anyhow::Result<String> {
        docker(&["exec", "--user", "0", &self.id()?, "bash", "-c", script]).await
    }

    /// How it ended, or `None` while it runs.
    pub async fn ended(&self) -> anyhow::Result<Option<End>> {
        let format = "{{.State.Running}} {{.State.ExitCode}} {{.State.OOMKilled}}";
        let state = docker(&["inspect", "--type", "container", "--format", format, &self.id()?]).await?;
        let fields: Vec<&str> = state.split(' ').collect();
        match fields[..] {
            ["true", ..] => Ok(None),
            ["false", code, out_of_memory] => Ok(Some(End {
                code: code.parse()?,
                out_of_memory: out_of_memory == "true",
            })),
            _ => bail!("container {} is in a state that is not known: {state}", self.name),
        }
    }

    async fn ask(&self, command: &[&str]) -> anyhow::Result<()> {
        docker(&[command, &[&self.id()?]].concat()).await?;
        Ok(())
    }

    fn id(&self) -> anyhow::Result<String> {
        let held = self.held();
        let held = held
            .as_ref()
            .with_context(|| format!("there is no container {}", self.name))?;
        Ok(held.id.clone())
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn make<I: Image + 'static>(name: String, log: PathBuf, request: ContainerRequest<I>) -> anyhow::Result<Held> {
    let file = File::options().append(true).create(true).open(&log)?;
    let file = Mutex::new(file);
    let request = request
        .with_container_name(name)
        .with_label(run::LABEL, run::id())
        .with_startup_timeout(START_WITHIN)
        .with_log_consumer(move |frame: &LogFrame| {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            // A log that cannot be written is no reason to fail.
            let _ = file.write_all(frame.bytes());
        })
        .with_host_config_modifier(|host| {
            let bindings = host.port_bindings.iter_mut().flatten();
            for binding in bindings.flat_map(|(_, bindings)| bindings.iter_mut().flatten()) {
                binding.host_ip = Some("127.0.0.1".to_owned());
            }
        });
    let value = in_lasting_runtime(request.start()).await??;
    Ok(Held {
        id: value.id().to_owned(),
        value: Some(Box::new(value)),
    })
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Container").field(&self.name).finish()
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let why = match (self.out_of_memory, self.code) {
            (true, _) => ": out of memory",
            (false, 137) => ": killed",
            (false, _) => "",
        };
        write!(f, "exit code {}{why}", self.code)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        watch::let_go(&self.id);
        let value = self.value.take();
        let (removed, waits) = std::sync::mpsc::channel();
        LASTING.spawn(async move {
            drop(value);
            // Nobody waits any more once the time is over.
            let _ = removed.send(());
        });
        // What is left is removed by the sweeper.
        let _ = waits.recv_timeout(REMOVE_WITHIN);
    }
}
