//! Child processes that cannot outlive us.
//!
//! The kernel signals a child when the *thread* that spawned it ends, so all of them are spawned by one
//! thread that lives as long as the process. A test that is killed with SIGKILL thereby takes its
//! Kafka, its Postgres and its services with it.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// A signal that the tests send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: our services drain.
    Terminate,
    /// SIGINT: Postgres stops fast.
    Interrupt,
    /// SIGQUIT: Postgres stops at once, as in a crash.
    Quit,
    /// SIGKILL.
    Kill,
    /// SIGSTOP: the process stands still with everything it holds.
    Freeze,
    /// SIGCONT: it goes on as if no time had passed.
    Thaw,
}

impl Signal {
    fn number(self) -> libc::c_int {
        match self {
            Self::Terminate => libc::SIGTERM,
            Self::Interrupt => libc::SIGINT,
            Self::Quit => libc::SIGQUIT,
            Self::Kill => libc::SIGKILL,
            Self::Freeze => libc::SIGSTOP,
            Self::Thaw => libc::SIGCONT,
        }
    }
}

/// A child process that is killed and reaped when it is dropped.
#[derive(Debug)]
pub struct Guarded {
    name: String,
    pid: u32,
    child: Mutex<Option<Child>>,
}

impl Guarded {
    /// Starts `command` in a process group of its own; `at_our_end` is what the kernel sends it when we die.
    pub fn spawn(name: &str, command: Command, at_our_end: Signal) -> anyhow::Result<Self> {
        let child = spawn_from_lasting_thread(command, at_our_end).with_context(|| format!("start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            pid: child.id(),
            child: Mutex::new(Some(child)),
        })
    }

    /// The process id; valid as long as the process was not waited for.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal; an error if the process has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let mut held = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(child) = held.as_mut() else {
            bail!("{} has ended", self.name)
        };
        // Asked under the lock, so that the id cannot belong to another process by now.
        if let Some(status) = child.try_wait()? {
            bail!("{} has ended: {status}", self.name);
        }
        send(self.pid, signal).with_context(|| format!("send {signal:?} to {}", self.name))
    }

    /// How the process ended, or `None` while it runs.
    pub fn ended(&self) -> anyhow::Result<Option<ExitStatus>> {
        let mut held = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_mut() {
            Some(child) => Ok(child.try_wait()?),
            None => bail!("{} was ended before", self.name),
        }
    }

    /// Waits until the process has ended; an error, with the process still running, after `within`.
    pub async fn wait(&self, within: Duration) -> anyhow::Result<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if began.elapsed() > within {
                bail!("{} (pid {}) still runs after {within:?}", self.name, self.pid);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Kills the process, frozen or not, and waits for its end.
    pub fn kill(&self) -> anyhow::Result<ExitStatus> {
        let mut held = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(child) = held.as_mut() else {
            bail!("{} was ended before", self.name)
        };
        child.kill().with_context(|| format!("kill {}", self.name))?;
        child.wait().with_context(|| format!("wait for {}", self.name))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let held = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = held.take() {
            // Both fail only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether the process was ended by the signal.
pub fn ended_by(status: ExitStatus, signal: Signal) -> bool {
    status.signal() == Some(signal.number())
}

/// Sends a signal to any process that we may signal.
#[expect(
    unsafe_code,
    reason = "kill(2) has no safe form in std; it takes two numbers and touches no memory of ours"
)]
pub fn send(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: see the reason above.
    match unsafe { libc::kill(pid, signal.number()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

type Request = (Command, mpsc::Sender<io::Result<Child>>);

/// The thread that spawns every child and never ends before the process does.
static SPAWNER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();

fn spawn_from_lasting_thread(mut command: Command, at_our_end: Signal) -> io::Result<Child> {
    command.process_group(0); // a Ctrl-C at the terminal is ours to answer, not the servers'
    die_with_parent(&mut command, at_our_end);
    let spawner = SPAWNER.get_or_init(|| {
        let (send, requests) = mpsc::channel::<Request>();
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                for (mut command, answer) in requests {
                    // The asker may have given up; then the child is killed by its own drop.
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        send
    });
    let (answer, spawned) = mpsc::channel();
    spawner.send((command, answer)).map_err(io::Error::other)?;
    spawned.recv().map_err(io::Error::other)?
}

#[expect(
    unsafe_code,
    reason = "PR_SET_PDEATHSIG must be set in the child between fork and exec"
)]
fn die_with_parent(command: &mut Command, signal: Signal) {
    let parent = std::process::id();
    // SAFETY: the closure makes two system calls, which are async-signal-safe, and allocates nothing.
    // It runs after the change of user, which would have cleared the setting.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal.number()) != 0 {
                return Err(io::Error::last_os_error());
            }
            // We may have died between fork and prctl: then nobody would send the signal.
            if u32::try_from(libc::getppid()) != Ok(parent) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
}
