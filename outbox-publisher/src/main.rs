//! The outbox publisher's process.

use std::process::ExitCode;

use outbox_publisher::app;
use outbox_publisher::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    shared::cli::run_main::<Config, _, _>(
        "outbox-publisher",
        "Publishes the events of the outbox to Kafka, in order per key",
        app::run,
    )
}
