//! Builds the adapters around the relay and keeps them together until the end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use shared::doorbell;
use shared::health::Health;
use shared::postgres::{self, SchemaError, Session};
use sqlx::Executor;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::Config;
use crate::domain::rules::Rules;
use crate::driver::{Bounds, Driver};
use crate::kafka::KafkaBroker;
use crate::metrics::Metrics;
use crate::observer::{PARTS, Watch};
use crate::postgres::PostgresStore;
use crate::postgres::maintenance;
use crate::relay::Relay;

const NAME: &str = "outbox-publisher";

/// Runs the publisher until `shutdown`, then drains.
///
/// # Errors
/// If a part cannot be started, or the drain was not finished in time.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let metrics = Metrics::new().context("register the metrics")?;
    let health = Health::new(&PARTS);
    let server = shared::health::serve(&config.http, health.clone(), metrics.registry.clone())
        .await
        .context("bind http.listen")?;
    let serving = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn({
        let serving = serving.clone();
        async move { server.run(serving).await.context("serve http") }
    });

    let options = postgres::connect_options(&config.database, NAME).context("database.url")?;
    tokio::select! {
        prepared = prepare_schema(&config, &health) => prepared.context("prepare the schema")?,
        () = shutdown.cancelled() => return Ok(()),
    }

    let instance = Uuid::now_v7();
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| NAME.to_owned());
    tracing::info!(instance = %instance, "publishing as {instance}");
    let session = Session::new(&config.database);
    let connect_timeout = Duration::from_millis(config.database.connect_timeout_ms);
    let store = Arc::new(PostgresStore::new(&options, session, connect_timeout, instance, host));
    let (told, facts) = mpsc::unbounded_channel();
    let broker = KafkaBroker::new(&config.kafka, told)?;
    let doorbell = Arc::new(Notify::new());
    let watch = Watch::new(&config, metrics.clone(), health, options.clone(), &mut tasks);
    tasks.spawn(listen(options.clone(), Arc::clone(&doorbell)));
    tasks.spawn(maintenance::run(options, session, config.retention.clone(), metrics));

    let relay = Relay::new(config.relay(), Rules::default(), instance.as_u64_pair().1);
    let ms = Duration::from_millis;
    let bounds = Bounds {
        statement: ms(config.relay.statement_ms),
        drain: ms(config.relay.drain_ms),
    };
    let driver = Driver::new(relay, store, broker, watch, facts, doorbell, bounds);
    let mut driving = tokio::spawn(driver.run(shutdown));
    let outcome = tokio::select! {
        outcome = &mut driving => outcome.context("the relay panicked")?.context("drain"),
        // The other tasks end only with an error or a panic of theirs: nothing goes on without them.
        Some(ended) = tasks.join_next() => {
            driving.abort();
            ended.context("a task panicked")?.and_then(|()| anyhow::bail!("a task ended"))
        }
    };
    serving.cancel();
    tasks.abort_all();
    outcome
}

/// Waits for Postgres as long as it takes; a schema that does not fit ends the service.
async fn prepare_schema(config: &Config, health: &Health) -> Result<(), SchemaError> {
    const PAUSE: Duration = Duration::from_secs(1);
    loop {
        match postgres::prepare_schema(&config.database, NAME).await {
            Err(error @ SchemaError::Database(_)) => {
                let reason = shared::cause::chain(&error);
                tracing::debug!("waiting for Postgres: {reason}");
                health.not_ready("postgres", reason);
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// Hears the doorbell. While it cannot, polling finds what is new.
async fn listen(options: PgConnectOptions, doorbell: Arc<Notify>) -> anyhow::Result<()> {
    const PAUSE: Duration = Duration::from_secs(1);
    /// A silent connection is tried so often: one that died without a word rings no more.
    const SILENCE: Duration = Duration::from_secs(20);
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(5))
        .connect_lazy_with(options);
    loop {
        let heard = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(doorbell::CHANNEL).await?;
            doorbell.notify_one(); // something may have rung before
            loop {
                match timeout(SILENCE, listener.try_recv()).await {
                    Ok(rung) => drop(rung?),
                    Err(_) => match timeout(SILENCE, listener.execute("select")).await {
                        Ok(answered) => {
                            answered?;
                        }
                        Err(_) => return Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
                    },
                }
                doorbell.notify_one();
            }
        };
        let ended: Result<(), sqlx::Error> = heard.await;
        if let Err(error) = ended {
            tracing::debug!("doorbell not heard, polling instead: {error}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
