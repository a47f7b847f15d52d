//! The command line that both services have, and the frame of their `main`.

use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser};
use tokio_util::sync::CancellationToken;

use crate::cause::chain;
use crate::config::{self, DatabaseSettings, HttpSettings, Settings, TelemetrySettings};
use crate::{health, postgres, shutdown, telemetry};

const EXIT_WELL: u8 = 0;
const EXIT_FAILED: u8 = 1;
/// Exit code of a process whose configuration was refused.
pub const EXIT_CONFIG: u8 = 2;

/// What a service is started with.
#[derive(Debug, Clone, Default, Parser)]
pub struct Args {
    /// TOML file with settings; the environment overrides it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the effective settings and where each came from, secrets hidden, and exit
    #[arg(long)]
    pub check_config: bool,
    /// Bring the schema up and exit
    #[arg(long)]
    pub migrate: bool,
    /// Ask the running service whether it is ready: exit 0 if so, 1 if not
    #[arg(long)]
    pub healthcheck: bool,
}

impl Args {
    /// Reads this process's arguments; prints help or the mistake and exits where they say so.
    pub fn of_process(name: &'static str, about: &'static str) -> Self {
        let matches = Self::command().name(name).bin_name(name).about(about).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// Settings of a service: the sections that its frame needs.
pub trait Service: Settings {
    /// Logs and traces.
    fn telemetry(&self) -> &TelemetrySettings;
    /// Where the schema is.
    fn database(&self) -> &DatabaseSettings;
    /// Where readiness is asked.
    fn http(&self) -> &HttpSettings;
}

/// Ends a process that has had Kafka clients, at once.
///
/// `exit` would first run what libraries left to be done then, OpenSSL's cleaning up among it, while threads of
/// clients that are still closing use it: `double free or corruption`, and 134 instead of the exit code. Nobody
/// waits for them, since a client whose broker is away can take a minute to close.
pub fn leave(code: u8) -> ! {
    let _ = std::io::stdout().flush();
    signal_hook::low_level::exit(code.into())
}

/// The whole of a service's `main`: arguments, settings, telemetry, the app until it ends, exit code.
///
/// The token is cancelled by SIGTERM or SIGINT. Exit codes: 0 drained, 1 fatal, 2 configuration refused.
pub fn run_main<S, F, Fut>(name: &'static str, about: &'static str, app: F) -> ExitCode
where
    S: Service,
    F: FnOnce(S, CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let args = Args::of_process(name, about);
    let loaded = match config::load::<S>(args.config.as_deref()) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprintln!("{name}: {errors}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if args.check_config {
        print!("{}", loaded.describe());
        return ExitCode::SUCCESS;
    }
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")
        .and_then(|runtime| {
            let outcome = runtime.block_on(run(name, &args, loaded.settings, app));
            runtime.shutdown_background(); // without waiting for what still blocks
            outcome
        });
    leave(outcome.unwrap_or_else(|error| {
        eprintln!("{name}: {}", chain(error.as_ref()));
        EXIT_FAILED
    }))
}

async fn run<S, F, Fut>(name: &'static str, args: &Args, settings: S, app: F) -> anyhow::Result<u8>
where
    S: Service,
    F: FnOnce(S, CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    if args.healthcheck {
        let readiness = health::probe(settings.http()).await.context("ask for readiness")?;
        println!("{}", readiness.body);
        return Ok(if readiness.is_ready { EXIT_WELL } else { EXIT_FAILED });
    }
    if args.migrate {
        postgres::migrate(settings.database()).await?;
        println!("{name}: the schema is up to date");
        return Ok(EXIT_WELL);
    }
    let telemetry = telemetry::start(settings.telemetry(), name).context("start telemetry")?;
    let outcome = app(settings, shutdown::on_signal().token).await;
    let code = match outcome {
        Ok(()) => {
            tracing::info!("{name} ended");
            EXIT_WELL
        }
        Err(error) => {
            tracing::error!("{name} failed: {}", chain(error.as_ref()));
            EXIT_FAILED
        }
    };
    telemetry.flush().await; // after the last span, whatever the outcome
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_command() {
        let help = Args::command()
            .name("triage-service")
            .bin_name("triage-service")
            .render_help();
        insta::assert_snapshot!(help);
    }
}
