//! What people see of the relay: metrics, readiness, log lines.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shared::health::Health;
use shared::postgres::{self, Session};
use sqlx::postgres::PgConnectOptions;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::driver::Observer;
use crate::metrics::Metrics;
use crate::ports::Held;
use crate::postgres::backlog;
use crate::relay::Relay;

/// The parts whose readiness is told.
pub(crate) const PARTS: [&str; 3] = ["postgres", "kafka", "topics"];

/// Gauges are set, and readiness told, at most so often.
const INTERVAL: Duration = Duration::from_millis(200);
/// The table is counted so often ...
const COUNT_INTERVAL: Duration = Duration::from_secs(5);
/// ... but one count takes no more than this part of the time to the next ...
const COUNT_PART: u32 = 50;
/// ... which comes after this at the latest: alerts look at it.
const COUNT_INTERVAL_MAX: Duration = Duration::from_secs(15);
/// A topic's trouble is told when it has lasted so long: a leader's move is over by then.
const TROUBLE_TOLD: Duration = Duration::from_secs(2);

/// Records in flight without a single acknowledgement are told after so long.
const SILENCE_TOLD: Duration = Duration::from_secs(5);
/// A count that hangs is given up, with its connection.
const COUNT_WAIT: Duration = Duration::from_secs(30);

/// Watches the relay.
pub(crate) struct Watch {
    metrics: Metrics,
    health: Health,
    next: Duration,
    held: Arc<Mutex<Vec<Held>>>,
    troubled: Vec<String>,
    is_store_well: bool,
    is_broker_well: bool,
    has_heard: bool,
    unanswered_since: Option<Duration>,
}

impl Watch {
    /// A watch, with its counting of the table among `tasks`.
    pub(crate) fn new(
        config: &Config,
        metrics: Metrics,
        health: Health,
        options: PgConnectOptions,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) -> Self {
        let held = Arc::new(Mutex::new(Vec::new()));
        let session = Session::new(&config.database).indexed();
        tasks.spawn(count(options, session, Arc::clone(&held), metrics.clone()));
        health.ready("topics");
        Self {
            metrics,
            health,
            next: Duration::ZERO,
            held,
            troubled: Vec::new(),
            is_store_well: false,
            is_broker_well: false,
            has_heard: false,
            unanswered_since: None,
        }
    }

    /// A broker that hangs cuts no connection: only the acknowledgements are missing.
    fn tell_silence(&mut self, relay: &Relay, now: Duration) {
        let waiting = relay.in_flight();
        if std::mem::take(&mut self.has_heard) || waiting == 0 {
            self.unanswered_since = None;
            return;
        }
        let since = *self.unanswered_since.get_or_insert(now);
        if self.is_broker_well && now.saturating_sub(since) >= SILENCE_TOLD {
            self.is_broker_well = false;
            self.health.not_ready(
                "kafka",
                format!("{waiting} records wait, none was acknowledged for {SILENCE_TOLD:?}"),
            );
        }
    }

    fn tell_topics(&mut self, relay: &Relay, now: Duration) {
        let troubled: Vec<(String, String)> = relay
            .troubled_topics()
            .filter(|(_, paused)| now.saturating_sub(paused.since) >= TROUBLE_TOLD)
            .map(|(topic, paused)| (topic.to_owned(), paused.reason.clone()))
            .collect();
        self.metrics
            .paused(relay.topics(), troubled.iter().map(|(topic, _)| topic.as_str()));
        for (topic, reason) in troubled.iter().filter(|(topic, _)| !self.troubled.contains(topic)) {
            tracing::warn!(topic = %topic, "nothing gets through to topic {topic}, its events wait: {reason}");
        }
        for topic in self
            .troubled
            .iter()
            .filter(|known| !troubled.iter().any(|(topic, _)| topic == *known))
        {
            tracing::info!(topic = %topic, "topic {topic} takes records again");
        }
        if troubled.is_empty() {
            self.health.ready("topics");
        } else {
            let reasons: Vec<String> = troubled
                .iter()
                .map(|(topic, reason)| format!("{topic}: {reason}"))
                .collect();
            self.health.not_ready("topics", reasons.join("; "));
        }
        self.troubled = troubled.into_iter().map(|(topic, _)| topic).collect();
    }
}

impl Observer for Watch {
    fn turn(&mut self, relay: &mut Relay, now: Duration) {
        if now < self.next {
            return;
        }
        self.next = now + INTERVAL;
        let tally = relay.take_tally();
        if tally.lost > 0 {
            tracing::warn!("{} buckets were taken by another instance", tally.lost);
        }
        if tally.swept > 0 {
            tracing::error!(
                "{} events were found only by the sweep below the read bound: this is a defect",
                tally.swept
            );
        }
        self.metrics.add(&tally);
        self.metrics.buckets.set(relay.buckets_held() as i64);
        self.metrics.instances.set(relay.instances() as i64);
        self.metrics.keys_blocked.set(relay.keys_blocked() as i64);
        self.metrics.in_flight.set(relay.in_flight() as i64);
        self.metrics
            .oldest_writer_seconds
            .set(relay.oldest_writer(now).as_secs_f64());
        *self.held.lock().expect("no holder panics") = relay.held();
        self.tell_topics(relay, now);
        self.tell_silence(relay, now);
    }

    fn store(&mut self, state: Result<(), &str>) {
        match state {
            Ok(()) if self.is_store_well => {}
            Ok(()) => {
                self.is_store_well = true;
                self.health.ready("postgres");
            }
            Err(reason) => {
                self.is_store_well = false;
                self.metrics.store_lost.inc();
                self.health.not_ready("postgres", reason);
            }
        }
    }

    fn broker(&mut self, state: Result<(), &str>) {
        match state {
            Ok(()) => {
                self.has_heard = true;
                if !self.is_broker_well {
                    self.is_broker_well = true;
                    self.health.ready("kafka");
                }
            }
            Err(reason) => {
                self.is_broker_well = false;
                self.health.not_ready("kafka", reason);
            }
        }
    }
}

async fn count(
    options: PgConnectOptions,
    session: Session,
    held: Arc<Mutex<Vec<Held>>>,
    metrics: Metrics,
) -> anyhow::Result<()> {
    let mut connection = None;
    loop {
        let held_now = held.lock().expect("no holder panics").clone();
        let counted = async {
            let mut open = match connection.take() {
                Some(open) => open,
                None => postgres::connect(&options, &session).await?,
            };
            let counted = backlog::count(&mut open, &held_now).await?;
            Ok::<_, sqlx::Error>((open, counted))
        };
        let (began, mut pause) = (Instant::now(), COUNT_INTERVAL);
        match tokio::time::timeout(COUNT_WAIT, counted).await {
            Ok(Ok((open, counted))) => {
                connection = Some(open);
                pause = (began.elapsed() * COUNT_PART).clamp(COUNT_INTERVAL, COUNT_INTERVAL_MAX);
                metrics.backlog.set(counted.events);
                metrics.oldest_seconds.set(counted.oldest_age_seconds);
                metrics.failed_rows.set(counted.failed);
            }
            Ok(Err(error)) => tracing::debug!("backlog not counted: {error}"),
            Err(_) => tracing::debug!("backlog not counted within {COUNT_WAIT:?}"),
        }
        tokio::time::sleep(pause).await;
    }
}
