//! A test with a mutant switched on, and what becomes of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use harness::Stack;

use crate::compile::{Built, Program};
use crate::list::{Mutant, Needs};
use crate::tree::VARIABLE;

/// A test that takes longer with a mutant than this hangs: each takes a small part of it without.
const LIMIT: Duration = Duration::from_secs(150);
/// How long the tests may take without any mutant, all together.
const LIMIT_WITHOUT: Duration = Duration::from_secs(600);

/// Runs the tests of the copy.
pub(crate) struct Runner<'a> {
    pub(crate) built: &'a Built,
    pub(crate) servers: Option<Servers>,
}

/// The addresses of the servers that all tests share.
pub(crate) struct Servers {
    postgres: String,
    brokers: String,
}

impl Servers {
    pub(crate) fn of(stack: &Stack) -> anyhow::Result<Self> {
        let postgres = stack.postgres().context("mutants have a Postgres of their own")?;
        Ok(Self {
            postgres: postgres.url("postgres"),
            brokers: stack.brokers(),
        })
    }
}

/// What became of a mutant.
pub(crate) struct Fate {
    pub(crate) took: Duration,
    pub(crate) end: End,
}

pub(crate) enum End {
    /// Its test fails, and says this.
    Killed(String),
    /// Its test hangs.
    KilledByTheLimit,
    /// It lives, for this reason.
    Survived(String),
}

impl Runner<'_> {
    /// All named tests pass without a mutant: else their failure says nothing.
    pub(crate) fn without_any(&self, chosen: &[Mutant]) -> anyhow::Result<()> {
        let mut tests: BTreeMap<(&Path, bool), (&Program, Vec<&str>)> = BTreeMap::new();
        for mutant in chosen {
            let program = self.built.of(mutant)?;
            let group = (&*program.file, mutant.needs == Needs::OwnServers);
            let named = &mut tests.entry(group).or_insert((program, Vec::new())).1;
            if !named.contains(&mutant.test[2].as_str()) {
                named.push(&mutant.test[2]);
            }
        }
        let began = Instant::now();
        let mut count = 0;
        for ((_, has_own), (program, named)) in tests {
            let ran = self.run(program, &named, None, has_own, LIMIT_WITHOUT)?;
            ensure!(
                !ran.said.contains("SKIPPED"),
                "a test shows nothing here:\n{}",
                ran.said
            );
            for test in &named {
                let passed = ran.said.contains(&format!("test {test} ... ok"));
                ensure!(passed, "without any mutant {test} does not pass:\n{}", ran.said);
            }
            count += named.len();
        }
        println!("without a mutant {count} tests pass in {:.0?}\n", began.elapsed());
        Ok(())
    }

    /// Tries each mutant, as many at a time as there are cores; `tell` is told of each as it ends.
    pub(crate) fn each<'m>(&self, chosen: &'m [Mutant], mut tell: impl FnMut(&'m Mutant, Fate)) -> anyhow::Result<()> {
        let queue = Mutex::new(chosen.iter());
        let hands = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let (ended, fates) = mpsc::channel();
            for _ in 0..hands {
                let (ended, queue) = (ended.clone(), &queue);
                scope.spawn(move || {
                    loop {
                        let next = queue.lock().expect("no holder panics").next();
                        let Some(mutant) = next else { return };
                        if ended.send((mutant, self.try_one(mutant))).is_err() {
                            return; // an error of another one ended it all
                        }
                    }
                });
            }
            drop(ended);
            for (mutant, fate) in fates {
                tell(mutant, fate?);
            }
            Ok(())
        })
    }

    fn try_one(&self, mutant: &Mutant) -> anyhow::Result<Fate> {
        let test = &mutant.test[2];
        let began = Instant::now();
        let ran = self.run(
            self.built.of(mutant)?,
            &[test],
            Some(&mutant.name),
            mutant.needs == Needs::OwnServers,
            LIMIT,
        )?;
        let end = match ran.end {
            Ended::Killed => End::KilledByTheLimit,
            Ended::Passed => End::Survived("its test passes".to_owned()),
            Ended::Failed if !ran.said.contains(&format!("test {test} ... FAILED")) => {
                End::Survived(format!("the program of its test broke:\n{}", ran.said))
            }
            Ended::Failed => {
                let cause = cause(&ran.said);
                if cause.contains(&mutant.says) {
                    End::Killed(cause)
                } else {
                    End::Survived(format!("its test fails for another reason: {cause}"))
                }
            }
        };
        Ok(Fate {
            took: began.elapsed(),
            end,
        })
    }

    fn run(
        &self,
        program: &Program,
        tests: &[&str],
        mutant: Option<&str>,
        has_own_servers: bool,
        limit: Duration,
    ) -> anyhow::Result<Ran> {
        let log = log_of(program, mutant.unwrap_or("none"))?;
        let output = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let mut command = Command::new(&program.file);
        command.current_dir(&program.folder).args(tests).arg("--exact");
        command.args(["--test-threads=2", "--show-output"]).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        // The services are built: a test that would build them anew asks this instead.
        command.env("CARGO", "true").env("RUST_BACKTRACE", "0");
        match mutant {
            Some(mutant) => command.env(VARIABLE, mutant),
            None => command.env_remove(VARIABLE),
        };
        if let Some(servers) = self.servers.as_ref().filter(|_| !has_own_servers) {
            command
                .env("STACK", "env")
                .env("CLAIMFIRST__DATABASE__URL", &servers.postgres)
                .env("CLAIMFIRST__KAFKA__BROKERS", &servers.brokers);
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("run {}", program.file.display()))?;
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let end = match status {
            None if mutant.is_none() => bail!("{tests:?} take longer than {limit:?}:\n{said}"),
            None => Ended::Killed,
            Some(status) if status.success() => Ended::Passed,
            Some(_) => Ended::Failed,
        };
        Ok(Ran { end, said })
    }
}

struct Ran {
    end: Ended,
    said: String,
}

enum Ended {
    Passed,
    Failed,
    Killed,
}

/// What a test says stays beside its program.
fn log_of(program: &Program, name: &str) -> anyhow::Result<PathBuf> {
    let folder = program
        .file
        .ancestors()
        .nth(3)
        .context("deps lies in a target folder")?;
    let folder = folder.join("logs");
    fs::create_dir_all(&folder)?;
    let of = program.file.file_name().unwrap_or_default().to_string_lossy();
    Ok(match name {
        "none" => folder.join(format!("none-{of}.log")),
        name => folder.join(format!("{name}.log")),
    })
}

/// Why a test failed, in a line: its error, or what follows the place of its last panic. Those before it may be a
/// policy's that the test has panic.
fn cause(said: &str) -> String {
    let lines: Vec<&str> = said.lines().skip_while(|line| !line.starts_with("---- ")).collect();
    let is_error = |line: &&str| line.starts_with("Error: ");
    let is_told = |line: &&str| line.contains("panicked at ") || is_error(line);
    let Some(told) = lines.iter().rposition(is_told) else {
        return "it says nothing".to_owned();
    };
    let first = if is_error(&lines[told]) { told } else { told + 1 };
    let is_part = |line: &&&str| !line.trim().is_empty() && !line.starts_with("note: ");
    let words = lines[first..]
        .iter()
        .take_while(is_part)
        .flat_map(|line| line.split_whitespace());
    let text = words.collect::<Vec<_>>().join(" ");
    let text = text.strip_prefix("assertion `left == right` failed").unwrap_or(&text);
    text.trim_start_matches([':', ' ']).to_owned()
}
