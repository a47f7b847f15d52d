//! The stream of `make demo` as a program of its own: support messages with everything in them that goes
//! wrong in practice, at a steady rate, until it is stopped or its time is over.

mod config;

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use harness::feed::{Feeder, Pace, Writer};
use harness::input::Inputs;
use shared::cli::EXIT_CONFIG;
use shared::{clock, shutdown};

use crate::config::Config;

/// Pause between two looks at whether the stream has ended.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

#[tokio::main]
async fn main() -> ExitCode {
    let config = match shared::config::load::<Config>(None) {
        Ok(loaded) => loaded.settings,
        Err(errors) => {
            eprintln!("load: {errors}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match feed(&config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn feed(config: &Config) -> anyhow::Result<()> {
    let stop = shutdown::on_signal().token;
    let pace = Pace {
        rate: config.rate,
        most: if config.seconds == 0 {
            u64::MAX
        } else {
            config.rate * config.seconds
        },
    };
    // Another stream at each start: under the ids of the last one, all of it would be duplicates.
    let now_ms = clock::unix_millis();
    let inputs = Inputs::new(now_ms.unsigned_abs(), now_ms);
    let feeder = Feeder::start(Writer::new(&config.brokers, &config.topic)?, inputs, pace, None);
    println!(
        "writing {} records a second to {} at {}",
        config.rate, config.topic, config.brokers
    );

    let acknowledged = feeder.acknowledged();
    let mut told = (Instant::now(), 0);
    while !stop.is_cancelled() && !feeder.has_ended() {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(LOOK_PAUSE) => {}
        }
        let lasted = told.0.elapsed();
        if lasted >= Duration::from_secs(config.report_seconds) {
            let now = acknowledged.load(Ordering::Relaxed);
            let rate = (now - told.1) as f64 / lasted.as_secs_f64();
            println!("{now} records acknowledged, {rate:.0} a second");
            told = (Instant::now(), now);
        }
    }
    let written = feeder.stop().await?;
    let kinds: Vec<String> = written
        .iter()
        .map(|(kind, count)| format!("{kind:?} {count}"))
        .collect();
    println!(
        "ended after {} records: {}",
        written.values().sum::<u64>(),
        kinds.join(", ")
    );
    Ok(())
}
