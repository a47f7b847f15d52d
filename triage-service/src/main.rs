//! The triage service: see the library of this crate.

use std::process::ExitCode;

use shared::cli;
use triage_service::app;
use triage_service::config::Settings;

fn main() -> ExitCode {
    let about =
        "Decides events from Kafka, exactly one decision per event, and stores each with its outcome in Postgres";
    cli::run_main::<Settings, _, _>("triage-service", about, app::run)
}
