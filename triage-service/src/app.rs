//! Builds the parts, starts them in their order, and ends them in the opposite one.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus::Registry;
use rdkafka::ClientConfig;
use shared::cause::chain;
use shared::doorbell::Doorbell;
use shared::health::{self, Health};
use shared::kafka::{Role, STATISTICS_INTERVAL_MS, TopicSpec, client_config, ensure_topics};
use shared::postgres::{SchemaError, Session, connect_options, prepare_schema};
use shared::retry::Backoff;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use crate::config::Settings;
use crate::intake::Intake;
use crate::intake::attempt::Triage;
use crate::intake::run::{PART_POSTGRES, PART_PROGRESS, Runner};
use crate::intake::safeguards::Safeguards;
use crate::kafka::{Consumer, ConsumerOptions, PART_DEAD_LETTERS, PART_KAFKA, watch_room};
use crate::metrics::Metrics;
use crate::postgres::{InboxOptions, PgInbox, maintenance};

/// A dead letter is larger than its source by its headers.
const DEAD_LETTER_MARGIN_BYTES: u32 = 64 * 1024;

/// Runs the service until `shutdown`, then drains. Errors are fatal: what can be waited for is waited for.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    log_panics();
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).context("register metrics")?;
    let health = Health::new(&[PART_KAFKA, PART_POSTGRES, PART_PROGRESS, PART_DEAD_LETTERS]);
    let server = health::serve(&settings.http, health.clone(), registry)
        .await
        .context("listen for HTTP")?;
    let end_of_server = CancellationToken::new(); // outlasts the drain
    let server = tokio::spawn(server.run(end_of_server.clone()));

    let outcome = serve(&settings, &metrics, &health, shutdown).await;
    end_of_server.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(1), server).await; // a slow reader of metrics holds up nobody
    outcome
}

async fn serve(
    settings: &Settings,
    metrics: &Metrics,
    health: &Health,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let started = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        started = start(settings, health) => started?,
    };
    let options = connect_options(&settings.database, "triage-service").context("read database.url")?;
    let session = Session::new(&settings.database);

    let mut background = JoinSet::new();
    let upkeep = settings.retention.upkeep();
    background.spawn(maintenance::run(
        options.clone(),
        session,
        upkeep,
        metrics.clone(),
        shutdown.clone(),
    ));
    background.spawn(watch_room(
        settings.kafka.clone(),
        settings.topics.dead_letter(),
        dead_letter_bytes(settings) as usize,
        health.clone(),
    ));

    let doorbell = Doorbell::new(options);
    let (arrivals, arrived) = mpsc::channel(settings.intake.chunks);
    let (consumer, partitions) = Consumer::start(consumer_options(settings), arrivals, health.clone(), metrics.clone())
        .context("start the consumer")?;
    let runner = Runner {
        intake: Intake::new(settings.intake.limits(), Safeguards::default()),
        inbox: Arc::new(started),
        partitions,
        triage: Arc::new(triage(settings)?),
        pace: settings.intake.pace(),
        metrics: metrics.clone(),
        health: health.clone(),
        ring: Box::new(move || doorbell.ring()),
    };
    info!(
        policy = settings.policy.version,
        "triage of {} begins", settings.topics.input
    );
    let outcome = runner.run(arrived, shutdown.clone()).await;
    consumer.close().await;
    shutdown.cancel(); // where the loop ended by itself
    background.shutdown().await;
    outcome.context("triage ended")
}

/// A panic is one line of the log, where it happened and nothing else: its text may hold what an event
/// says. A policy's panic is caught, and its event set aside; any other ends the service.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        error!("panicked at {place}");
    }));
}

/// Waits for Postgres and Kafka, for as long as it takes; readiness says what is waited for.
async fn start(settings: &Settings, health: &Health) -> anyhow::Result<PgInbox> {
    let pace = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let prepare = || async {
        match prepare_schema(&settings.database, "triage-service").await {
            Err(error @ SchemaError::Database(_)) => Err(anyhow::Error::from(error)),
            decided => Ok(decided),
        }
    };
    patiently(PART_POSTGRES, pace, health, prepare)
        .await
        .context("prepare the schema")?;

    let connect = connect_options(&settings.database, "triage-service").context("read database.url")?;
    let options = InboxOptions {
        connect,
        session: Session::new(&settings.database).indexed(),
        connect_timeout: Duration::from_millis(settings.database.connect_timeout_ms),
        confirm_duplicates: settings.intake.confirm_duplicates,
    };
    let topic: Arc<str> = settings.topics.input.as_str().into();
    let limit = Duration::from_millis(settings.intake.attempt_timeout_ms);
    let open = || async {
        let opened = PgInbox::open(options.clone(), settings.consumer(), &topic);
        Ok(tokio::time::timeout(limit, opened)
            .await
            .context("postgres does not answer")??)
    };
    let inbox = patiently(PART_POSTGRES, pace, health, open).await;
    health.ready(PART_POSTGRES);

    let topics = topics(settings);
    let ensure = || async { Ok(ensure_topics(&settings.kafka, &topics).await?) };
    patiently(PART_KAFKA, pace, health, ensure).await;
    Ok(inbox)
}

/// Tries until it succeeds.
async fn patiently<T, F, Fut>(part: &'static str, pace: Backoff, health: &Health, attempt: F) -> T
where
    F: Fn() -> Fut,
    Fut: Future<Output = anyhow::Result<T>>,
{
    let mut attempts = 0;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => {
                attempts += 1;
                let reason = chain(error.as_ref());
                debug!("{part} not ready, trying again: {reason}");
                health.not_ready(part, reason);
                tokio::time::sleep(pace.pause(attempts, rand::random())).await;
            }
        }
    }
}

fn topics(settings: &Settings) -> [TopicSpec; 3] {
    let topic = |name: &str| TopicSpec::new(name, &settings.kafka);
    [
        topic(&settings.topics.input),
        topic(&settings.topics.output),
        topic(&settings.topics.dead_letter()).with_max_message_bytes(dead_letter_bytes(settings)),
    ]
}

/// The largest dead letter.
fn dead_letter_bytes(settings: &Settings) -> u32 {
    let input = settings.topics.input_record_bytes_max;
    input.saturating_add(DEAD_LETTER_MARGIN_BYTES)
}

fn consumer_options(settings: &Settings) -> ConsumerOptions {
    let intake = &settings.intake;
    ConsumerOptions {
        client: client(settings),
        topic: settings.topics.input.as_str().into(),
        poll: Duration::from_millis(intake.poll_ms),
        chunk_records: intake.chunk_records,
        gather_max: Duration::from_millis(intake.gather_max_ms),
        revoke_timeout: Duration::from_millis(intake.revoke_timeout_ms),
        close_timeout: Duration::from_millis(intake.close_timeout_ms),
    }
}

/// The client's settings: what suits this service, unless the properties say otherwise.
fn client(settings: &Settings) -> ClientConfig {
    let mut client = client_config(&settings.kafka, Role::Consumer);
    let suited = [
        ("fetch.wait.max.ms", "100"), // an empty partition is asked for again so often, and a resumed one waits so long
        ("check.crcs", "false"),      // TCP and the broker have checked; it costs a tenth of the client's time
        ("statistics.interval.ms", STATISTICS_INTERVAL_MS), // lag and the state of brokers
    ];
    for (name, value) in suited {
        if settings.kafka.properties.get(name).is_none() {
            client.set(name, value);
        }
    }
    client.set("client.id", "triage-service");
    client
}

fn triage(settings: &Settings) -> anyhow::Result<Triage> {
    Ok(Triage {
        policies: settings.policy.policies(),
        accepted: settings.intake.accepted().context("read intake.accepted_types")?,
        consumer: settings.consumer().to_owned(),
        group: settings.group().to_owned(),
        output_topic: settings.topics.output.clone(),
        dead_letter_topic: settings.topics.dead_letter(),
        instance: settings.telemetry.service_instance.clone(),
        keep_input: settings.intake.keep_input,
        is_traced: settings.telemetry.otlp_endpoint.is_some(),
        safeguards: Safeguards::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_letter_topic_has_room_for_the_largest_record_and_its_headers() {
        let mut settings = Settings::default();
        settings.topics.input_record_bytes_max = 3_000_000;
        let [input, output, dead_letter] = topics(&settings);
        assert_eq!((input.max_message_bytes, output.max_message_bytes), (None, None));
        assert_eq!(dead_letter.max_message_bytes, Some(3_000_000 + 64 * 1024));
    }
}
