//! What can be typed, and how it ends: 0 yes, 1 no, 2 could not find out.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand};
use shared::cause::chain;
use shared::cli::leave;
use shared::config::{self, Loaded};

use crate::config::Settings;
use crate::reconcile::progress::Progress;
use crate::reconcile::report::Report;
use crate::reconcile::window::{Millis, Window, parse_duration};
use crate::reconcile::{self, Question};

const SOMETHING_IS_WRONG: u8 = 1;
/// Nothing is known: a setting was refused, Kafka or Postgres did not answer.
const COULD_NOT_FIND_OUT: u8 = 2;
const REPORT: &str = "target/reports/reconcile.json";

/// Looks after Claimfirst: what is wrong, and what mends it
#[derive(Debug, Parser)]
#[command(name = "claimfirst", version, max_term_width = 110)]
#[command(
    after_help = "Settings are those of the services, under CLAIMFIRST__ or in the file: CLAIMFIRST__DATABASE__URL, \
    CLAIMFIRST__KAFKA__BROKERS, CLAIMFIRST__KAFKA__GROUP, CLAIMFIRST__TOPICS__INPUT, ...\n\
    Exit codes: 0 yes, 1 no, 2 could not find out."
)]
struct Cli {
    /// TOML file with settings; the environment overrides it
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare Kafka with Postgres and say whether every guarantee was kept
    #[command(
        long_about = "Compares Kafka with Postgres and says whether every guarantee was kept: nothing lost, nothing \
        decided twice, order per key, what is published is what was stored.\n\n\
        It may run while the services work: what is not finished yet is not called wrong, and what retention has \
        removed is not called lost. It changes nothing; ids and digests of what it reads go into temporary tables of \
        its session, so it needs a login of the role claimfirst_reader at the primary. Until it ends, upkeep drops no \
        old leaves."
    )]
    Reconcile(Reconcile),
    /// Print the settings in effect and where each came from, secrets hidden
    Settings,
}

#[derive(Debug, Args)]
struct Reconcile {
    /// Only this topic: the input, or one that outbox rows go to; may be repeated
    #[arg(long = "topic", value_name = "TOPIC", help_heading = "What is looked at")]
    topics: Vec<String>,
    /// Only this partition of the one topic
    #[arg(long, value_name = "N", help_heading = "What is looked at")]
    partition: Option<i32>,
    /// Only records of the one topic from this offset on
    #[arg(long, value_name = "OFFSET", help_heading = "What is looked at")]
    from_offset: Option<i64>,
    /// Only records of the one topic below this offset
    #[arg(long, value_name = "OFFSET", help_heading = "What is looked at")]
    to_offset: Option<i64>,
    /// Only what was made since: a moment (2026-11-21T09:00:00Z), or how long ago (2h, 3d)
    #[arg(long, value_name = "TIME", value_parser = parse_time, help_heading = "What is looked at")]
    since: Option<Millis>,
    /// Only what was made before: a moment, or how long ago
    #[arg(long, value_name = "TIME", value_parser = parse_time, help_heading = "What is looked at")]
    until: Option<Millis>,
    /// Rows that have been PENDING for longer are wrong; longer than an outage that you know of
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10m")]
    pending_age: Duration,
    /// Other producers write to the output topics, too: count their records apart. Only what has nothing of ours counts
    /// as theirs: no header outbox-id or outbox-epoch, no event and no bytes of a row
    #[arg(long)]
    foreign_records: bool,
    /// How many of each finding are named
    #[arg(long, value_name = "N", default_value_t = 5)]
    examples: usize,
    /// Where the JSON report is written [default: target/reports/reconcile.json]
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Does what this process was asked for.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let loaded = match config::load::<Settings>(cli.config.as_deref()) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprintln!("claimfirst: {errors}");
            return ExitCode::from(COULD_NOT_FIND_OUT);
        }
    };
    let ended = match &cli.command {
        Command::Settings => {
            print_settings(&loaded, cli.json);
            Ok(true)
        }
        Command::Reconcile(asked) => asked.run(&loaded.settings, cli.json),
    };
    leave(match ended {
        Ok(true) => 0,
        Ok(false) => SOMETHING_IS_WRONG,
        Err(error) => {
            eprintln!("claimfirst: {}", chain(error.as_ref()));
            COULD_NOT_FIND_OUT
        }
    })
}

fn print_settings(loaded: &Loaded<Settings>, is_json: bool) {
    if is_json {
        let text = serde_json::to_string_pretty(&loaded.settings).expect("settings are plain data");
        say(&(text + "\n"));
    } else {
        say(&loaded.describe());
    }
}

impl Reconcile {
    /// Whether nothing is wrong.
    fn run(&self, settings: &Settings, is_json: bool) -> anyhow::Result<bool> {
        let question = self.question()?;
        let (began, clock) = (Utc::now(), Instant::now());
        let progress = Progress::on_terminal();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("start the runtime")?;
        let answer = runtime.block_on(reconcile::reconcile(settings, &question, &progress));
        progress.end();
        runtime.shutdown_background(); // a client whose broker is away can take a minute to close
        let report = Report::of(answer?, began, clock.elapsed().as_secs_f64());
        say(&if is_json { report.json() } else { report.table() });
        if let Some(file) = self.write(&report)?
            && !is_json
        {
            say(&format!("the report is {}\n", file.display()));
        }
        Ok(report.ok)
    }

    fn question(&self) -> anyhow::Result<Question> {
        let window = Window {
            topics: self.topics.clone(),
            partition: self.partition,
            from_offset: self.from_offset,
            to_offset: self.to_offset,
            since: self.since,
            until: self.until,
        };
        if let Some(mistake) = window.mistake() {
            anyhow::bail!(mistake);
        }
        Ok(Question {
            window,
            pending_age: self.pending_age,
            admits_foreign: self.foreign_records,
            examples_max: self.examples,
        })
    }

    /// Where it was written. A report that was asked for by name must be; the usual one may not: a container is
    /// read-only.
    fn write(&self, report: &Report) -> anyhow::Result<Option<&Path>> {
        let file = self.report.as_deref().unwrap_or(Path::new(REPORT));
        match write(file, &report.json()) {
            Ok(()) => Ok(Some(file)),
            Err(error) if self.report.is_some() => Err(error).with_context(|| format!("--report {}", file.display())),
            Err(error) => {
                let file = file.display();
                eprintln!("claimfirst: no report written to {file}: {error}; --report FILE names another place");
                Ok(None)
            }
        }
    }
}

/// Prints. Whoever reads it may have seen enough and be gone; the verdict is the exit code.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn write(file: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, text)
}

/// A moment, or how long ago it was.
fn parse_time(text: &str) -> Result<Millis, String> {
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Ok(moment.timestamp_millis());
    }
    let ago = parse_duration(text).map_err(|_| {
        format!("{text:?} is neither a moment as 2026-11-21T09:00:00Z, with its zone, nor a span as 2h")
    })?;
    Ok(Utc::now().timestamp_millis() - i64::try_from(ago.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn help_names_every_command() {
        insta::assert_snapshot!(Cli::command().render_help());
    }

    #[test]
    fn help_of_reconcile_names_every_option() {
        let mut cli = Cli::command();
        let reconcile = cli.find_subcommand_mut("reconcile").expect("there is one");
        insta::assert_snapshot!(reconcile.render_long_help());
    }

    #[test]
    fn what_can_be_typed_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_moment_needs_its_zone() {
        assert_eq!(parse_time("2026-11-21T09:00:00Z"), Ok(1_795_251_600_000));
        assert_eq!(
            parse_time("2026-11-21T10:00:00+01:00"),
            parse_time("2026-11-21T09:00:00Z")
        );
        assert!(parse_time("2026-11-21T09:00:00").is_err());
        assert!(parse_time("yesterday").is_err());
        let now = Utc::now().timestamp_millis();
        let ago = parse_time("2h").expect("a span");
        assert!((now - 7_200_000 - ago).abs() < 60_000);
    }
}
