//! Random writers on a real Postgres, and a judge that knows only when they inserted and committed.
//!
//! Fourteen writers keep transactions open for up to three seconds; some take their xid long before
//! their first insert, some roll back. The right rule must publish everything once and in the promised
//! order; rules known to be wrong must be caught, or the trial shows nothing.

mod judge;
mod stores;

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use judge::{Findings, Written, judge};
use outbox_publisher::domain::rules::{Rule, Rules};
use outbox_publisher::driver::{Bounds, Driver};
use outbox_publisher::ports::OutboxStore;
use outbox_publisher::postgres::PostgresStore;
use outbox_publisher::relay::{Relay, RelayConfig};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared::hash;
use sqlx::postgres::PgConnection;
use stores::{Late, SampleAlone};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::outbox::fixture::{Outbox, TOPIC};
use crate::outbox::recorder::{Record, Recorder, Sweeps};
use crate::outbox::rig;

const WRITERS: u64 = 14;
const KEYS: usize = 12;
const LEAF_ROWS: i64 = 500;
/// What is left after the writers have ended is published within this time, or lost.
const DRAINED_WITHIN: Duration = Duration::from_secs(20);
/// How long the right rule is tried. Short runs hide mistakes.
const RIGHT_LASTS: Duration = Duration::from_secs(40);
/// How long a wrong rule may escape. Most are caught within seconds.
const WRONG_LASTS: Duration = Duration::from_secs(75);

/// The keys share a bucket: a late row and the rows that passed it meet in one cursor.
static KEY_NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    (0..)
        .map(|n| format!("key {n}"))
        .filter(|name| hash::bucket_of(Some(name.as_bytes()), Uuid::nil()) == 0)
        .take(KEYS)
        .collect()
});

/// What all writers wrote so far.
type Writings = Arc<Mutex<Vec<Written>>>;

/// One writer until it shall end.
async fn write(
    mut connection: PgConnection,
    writer: u64,
    seed: u64,
    writings: Writings,
    end: CancellationToken,
) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed * 1000 + writer);
    let mut number = 0;
    while !end.is_cancelled() {
        number += 1;
        sqlx::raw_sql("begin").execute(&mut connection).await?;
        if random.random_bool(0.5) {
            sqlx::raw_sql("select pg_current_xact_id()")
                .execute(&mut connection)
                .await?;
            pause(&mut random, 300).await;
        }
        let mut mine = Vec::new();
        for place in 0..random.random_range(1..=4) {
            let (event_id, key) = (Uuid::now_v7(), random.random_range(0..KEYS));
            let inserted_at = Instant::now();
            sqlx::query("select outbox_enqueue($1, $2, 'x', 'p', $3)")
                .bind(TOPIC)
                .bind(KEY_NAMES[key].as_bytes())
                .bind(event_id)
                .execute(&mut connection)
                .await?;
            let transaction = (writer, number);
            mine.push(Written {
                event_id,
                key,
                transaction,
                place,
                inserted_at,
                committed_at: None,
            });
            if random.random_bool(0.3) {
                pause(&mut random, 30).await;
            }
        }
        // Most are short; some stay open for long, while the others go on.
        match random.random_range(0..20) {
            0 => pause(&mut random, 3000).await,
            1..=4 => pause(&mut random, 200).await,
            _ => {}
        }
        if random.random_bool(0.1) {
            sqlx::raw_sql("rollback").execute(&mut connection).await?;
        } else {
            sqlx::raw_sql("commit").execute(&mut connection).await?;
            let committed_at = Some(Instant::now());
            mine.iter_mut().for_each(|event| event.committed_at = committed_at);
        }
        lock(&writings).append(&mut mine);
        pause(&mut random, 40).await;
    }
    Ok(())
}

async fn pause(random: &mut StdRng, millis_max: u64) {
    tokio::time::sleep(Duration::from_millis(random.random_range(0..=millis_max))).await;
}

/// What is tried: a rule, and what must come of it.
struct Trial {
    name: &'static str,
    rows_max: usize,
    rules: Rules,
    is_right: bool,
}

impl Trial {
    /// One run: a database of its own, the writers, one publisher on a store made by `wrap`. A wrong
    /// rule has its verdict as soon as it is caught.
    async fn run<S: OutboxStore>(self, wrap: impl FnOnce(PostgresStore) -> S) -> anyhow::Result<()> {
        let outbox = Outbox::new(self.name).await?;
        outbox.small_leaves(LEAF_ROWS, 12).await?;
        let record = Record::default();
        let shutdown = CancellationToken::new();
        let driver = self.publisher(wrap(outbox.store()), &record);
        let publisher = tokio::spawn(driver.run(shutdown.clone()));
        let (writings, end) = (Writings::default(), CancellationToken::new());
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let connection = outbox.connect().await?;
            writers.spawn(write(
                connection,
                writer,
                self.rows_max as u64,
                Arc::clone(&writings),
                end.clone(),
            ));
        }
        let lasted = self.attend(&outbox, &writings, &record).await?;
        end.cancel();
        while let Some(ended) = writers.join_next().await {
            ended??;
        }
        if self.is_right {
            let committed = lock(&writings)
                .iter()
                .filter(|event| event.committed_at.is_some())
                .count();
            let waited = Instant::now();
            while record.count() < committed && waited.elapsed() < DRAINED_WITHIN {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        shutdown.cancel();
        // A publisher by a wrong rule may be unable to drain; what it has sent is judged.
        let _ = publisher.await?;
        let findings = found(&writings, &record);
        eprintln!("{} for {lasted:.0?}: {findings:?}", self.name);
        if self.is_right {
            ensure!(
                findings.is_clean() && findings.rows > 1000,
                "{}: {findings:?}",
                self.name
            );
        } else {
            ensure!(is_caught(&findings), "{} was not caught: {findings:?}", self.name);
        }
        outbox.remove().await
    }

    fn publisher<S: OutboxStore>(&self, store: S, record: &Record) -> Driver<S, Recorder, Sweeps> {
        let config = RelayConfig {
            read_rows_max: self.rows_max,
            read_rows_shared: 64 * self.rows_max,
            bucket_rows_max: self.rows_max * 2,
            sweep_interval: Duration::from_secs(2), // often: whatever the rule has passed must be found
            ..rig::config()
        };
        let (broker, facts) = Recorder::new(record.clone());
        let bounds = Bounds {
            statement: Duration::from_secs(10),
            drain: DRAINED_WITHIN,
        };
        let relay = Relay::new(config, self.rules.clone(), 1);
        let doorbell = Arc::new(Notify::new());
        Driver::new(
            relay,
            Arc::new(store),
            broker,
            Sweeps(record.clone()),
            facts,
            doorbell,
            bounds,
        )
    }

    /// Does the services' housekeeping beside the writers, until there is a verdict: leaves ahead, and old
    /// ones dropped when they may be. How long that took.
    async fn attend(&self, outbox: &Outbox, writings: &Writings, record: &Record) -> anyhow::Result<Duration> {
        let mut keeper = outbox.connect().await?;
        let began = Instant::now();
        while began.elapsed() < if self.is_right { RIGHT_LASTS } else { WRONG_LASTS } {
            for statement in [
                "select outbox_make_leaves(500, 12)",
                "select outbox_drop_leaf('3 seconds')",
            ] {
                // A lock that was not had in time is had the next time.
                let _ = sqlx::raw_sql(statement).execute(&mut keeper).await;
            }
            if !self.is_right && is_caught(&found(writings, record)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(began.elapsed())
    }
}

fn lock(writings: &Writings) -> MutexGuard<'_, Vec<Written>> {
    writings.lock().unwrap_or_else(PoisonError::into_inner)
}

fn found(writings: &Writings, record: &Record) -> Findings {
    let sent = record.sent(); // first: what is sent later may not be among the writings yet
    let mut findings = judge(&lock(writings), &sent);
    findings.swept = record.swept();
    findings
}

/// Whether a rule has shown itself wrong. What is not sent yet is no loss while the writers go on.
fn is_caught(findings: &Findings) -> bool {
    findings.inverted + findings.twice > 0 || findings.swept > 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_writers_lose_nothing_and_wrong_rules_are_caught() -> anyhow::Result<()> {
    let right = |name, rows_max| Trial {
        name,
        rows_max,
        rules: Rules::default(),
        is_right: true,
    };
    let wrong = |name, rules| Trial {
        name,
        rows_max: 1000,
        rules,
        is_right: false,
    };
    let trials = tokio::join!(
        right("trial_reads_of_15", 15).run(Late),
        right("trial_reads_of_1000", 1000).run(std::convert::identity),
        wrong("trial_two_cursors", Rules::without([Rule::OneCursor])).run(Late),
        wrong("trial_early_marks", Rules::without([Rule::MarkBeforeRead])).run(Late),
        wrong("trial_sample_alone", Rules::default()).run(|store| Late(SampleAlone(store))),
    );
    let verdicts = [trials.0, trials.1, trials.2, trials.3, trials.4];
    let failures: Vec<String> = verdicts
        .into_iter()
        .filter_map(|verdict| Some(format!("{:#}", verdict.err()?)))
        .collect();
    ensure!(failures.is_empty(), "{failures:?}");
    Ok(())
}
