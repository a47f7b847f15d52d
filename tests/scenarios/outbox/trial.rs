//! Random writers on a real Postgres, and a judge that knows only when they inserted and committed.
//!
//! Fourteen writers keep transactions open for up to three seconds; some take their xid long before
//! their first insert, some roll back. The right rule must publish everything once and in the promised
//! order; rules known to be wrong must be caught, or the trial shows nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use outbox_publisher::domain::marks::Xid;
use outbox_publisher::domain::rules::{Rule, Rules};
use outbox_publisher::driver::{Bounds, Driver};
use outbox_publisher::ports::{
    ChangeAnswer, ChangeRequest, ControlAnswer, ControlRequest, LookAnswer, LookRequest, OutboxStore, ReadAnswer,
    ReadRequest, SettleRow, StoreError,
};
use outbox_publisher::postgres::PostgresStore;
use outbox_publisher::relay::{Relay, RelayConfig};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sqlx::postgres::PgConnection;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::outbox::fixture::{Outbox, TOPIC};
use crate::outbox::recorder::{Record, Recorder, Sweeps};
use crate::outbox::rig;

const WRITERS: u64 = 14;
const KEYS: u32 = 12;
const LEAF_ROWS: i64 = 500;
/// What is left after the writers have ended is published within this time, or lost.
const DRAINED_WITHIN: Duration = Duration::from_secs(20);

/// What a writer knows of its own event.
#[derive(Debug, Clone)]
struct Written {
    event_id: Uuid,
    key: u32,
    /// Which transaction, and its how-manieth insert.
    transaction: (u64, u64),
    place: u32,
    inserted_at: Instant,
    /// When the commit was known; `None` if it was rolled back.
    committed_at: Option<Instant>,
}

/// What the judge found.
#[derive(Debug, Default)]
struct Findings {
    rows: usize,
    inverted: usize,
    lost: usize,
    twice: usize,
    uncommitted: usize,
    swept: u64,
}

impl Findings {
    fn is_clean(&self) -> bool {
        self.inverted + self.lost + self.twice + self.uncommitted == 0 && self.swept == 0
    }
}

/// Judges an order of event ids by insert and commit times alone.
fn judge(written: &[Written], sent: &[Uuid]) -> Findings {
    let mut findings = Findings::default();
    let mut places: HashMap<Uuid, usize> = HashMap::new();
    for (place, id) in sent.iter().enumerate() {
        if places.contains_key(id) {
            findings.twice += 1;
        } else {
            places.insert(*id, place);
        }
    }
    for key in 0..KEYS {
        let of_key = written.iter().filter(|event| event.key == key);
        let (mut committed, mut undone) = (Vec::new(), 0);
        for event in of_key {
            match (event.committed_at, places.get(&event.event_id)) {
                (Some(at), Some(place)) => committed.push((event, at, *place)),
                (Some(_), None) => findings.lost += 1,
                (None, Some(_)) => undone += 1,
                (None, None) => {}
            }
        }
        findings.uncommitted += undone;
        findings.rows += committed.len();
        for (a, a_committed, a_place) in &committed {
            for (b, _, b_place) in &committed {
                let is_promised = if a.transaction == b.transaction {
                    a.place < b.place
                } else {
                    *a_committed < b.inserted_at
                };
                findings.inverted += usize::from(is_promised && a_place > b_place);
            }
        }
    }
    findings
}

/// One writer until `until`: what it wrote.
async fn write(mut connection: PgConnection, writer: u64, seed: u64, until: Instant) -> anyhow::Result<Vec<Written>> {
    let mut random = StdRng::seed_from_u64(seed * 1000 + writer);
    let mut written = Vec::new();
    let mut number = 0;
    while Instant::now() < until {
        number += 1;
        sqlx::raw_sql("begin").execute(&mut connection).await?;
        if random.random_bool(0.3) {
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
                .bind(format!("key {key}").into_bytes())
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
        written.append(&mut mine);
        pause(&mut random, 40).await;
    }
    Ok(written)
}

async fn pause(random: &mut StdRng, millis_max: u64) {
    tokio::time::sleep(Duration::from_millis(random.random_range(0..=millis_max))).await;
}

/// One run: a database of its own, the writers, one publisher by `rules` on a store made by `wrap`.
async fn run<S: OutboxStore>(
    name: &str,
    lasts: Duration,
    rows_max: usize,
    rules: Rules,
    wrap: impl FnOnce(PostgresStore) -> S,
) -> anyhow::Result<Findings> {
    let outbox = Outbox::new(name).await?;
    outbox.small_leaves(LEAF_ROWS, 12).await?;
    let config = RelayConfig {
        read_rows_max: rows_max,
        bucket_rows_max: rows_max * 2,
        sweep_interval: Duration::from_secs(2), // often: whatever the rule has passed must be found
        ..rig::config()
    };
    let record = Record::default();
    let (broker, facts) = Recorder::new(record.clone());
    let store = Arc::new(wrap(outbox.store()));
    let shutdown = CancellationToken::new();
    let driver = Driver::new(
        Relay::new(config, rules, 1),
        store,
        broker,
        Sweeps(record.clone()),
        facts,
        Arc::new(Notify::new()),
        Bounds {
            statement: Duration::from_secs(10),
            drain: DRAINED_WITHIN,
        },
    );
    let publisher = tokio::spawn(driver.run(shutdown.clone()));
    let until = Instant::now() + lasts;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(outbox.connect().await?, writer, rows_max as u64, until));
    }
    // The services' housekeeping goes on beside it: leaves ahead, and old ones dropped when they may be.
    let mut keeper = outbox.connect().await?;
    let mut written = Vec::new();
    while let Some(mine) = {
        tokio::select! {
            mine = writers.join_next() => mine,
            () = tokio::time::sleep(Duration::from_millis(500)) => Some(Ok(Ok(Vec::new()))),
        }
    } {
        written.append(&mut mine??);
        for statement in [
            "select outbox_make_leaves(500, 12)",
            "select outbox_drop_leaf('3 seconds')",
        ] {
            // A lock that was not had in time is had the next time.
            let _ = sqlx::raw_sql(statement).execute(&mut keeper).await;
        }
    }
    let committed = written.iter().filter(|event| event.committed_at.is_some()).count();
    let waited = Instant::now();
    let patience = if lasts > SHORT {
        DRAINED_WITHIN
    } else {
        Duration::from_secs(3)
    };
    while record.count() < committed && waited.elapsed() < patience {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    shutdown.cancel();
    // A publisher by a wrong rule may be unable to drain; what it has sent is judged.
    let _ = publisher.await?;
    let mut findings = judge(&written, &record.sent());
    findings.swept = record.swept();
    eprintln!("trial {name}: {findings:?}");
    outbox.remove().await?;
    Ok(findings)
}

/// How long a wrong rule is tried.
const SHORT: Duration = Duration::from_secs(15);
const LONG: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_writers_lose_nothing_and_wrong_rules_are_caught() -> anyhow::Result<()> {
    let right = |name, rows_max| run(name, LONG, rows_max, Rules::default(), std::convert::identity);
    let wrong = |name, rule| run(name, SHORT, 1000, Rules::without([rule]), std::convert::identity);
    let (small, large, two_cursors, floors, marks) = tokio::join!(
        right("trial_reads_of_15", 15),
        right("trial_reads_of_1000", 1000),
        wrong("trial_two_cursors", Rule::OneCursor),
        wrong("trial_early_marks", Rule::MarkBeforeRead),
        run("trial_sample_alone", SHORT, 1000, Rules::default(), SampleAlone),
    );
    for findings in [&small, &large] {
        let findings = findings.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
        ensure!(
            findings.is_clean() && findings.rows > 1000,
            "by the right rule: {findings:?}"
        );
    }
    for (rule, findings) in [
        ("two cursors", two_cursors?),
        ("marks that count for the read under way", floors?),
        ("marks without a transaction of our own", marks?),
    ] {
        ensure!(!findings.is_clean(), "{rule}: not caught");
    }
    Ok(())
}

/// A store whose marks are samples alone, and whose every settle is taken for one.
struct SampleAlone(PostgresStore);

impl OutboxStore for SampleAlone {
    async fn read(&self, request: ReadRequest) -> Result<ReadAnswer, StoreError> {
        self.0.read(request).await
    }

    async fn look(&self, request: LookRequest) -> Result<LookAnswer, StoreError> {
        self.0.look(request).await
    }

    async fn mark(&self) -> Result<i64, StoreError> {
        Ok(self.0.locks(Vec::new()).await?.0)
    }

    async fn settle(&self, rows: Vec<SettleRow>) -> Result<u64, StoreError> {
        Ok(self.0.settle(rows).await?.max(1))
    }

    async fn change(&self, request: ChangeRequest) -> Result<ChangeAnswer, StoreError> {
        self.0.change(request).await
    }

    async fn control(&self, request: ControlRequest) -> Result<ControlAnswer, StoreError> {
        self.0.control(request).await
    }

    async fn locks(&self, xids: Vec<Xid>) -> Result<(i64, Vec<Xid>), StoreError> {
        self.0.locks(xids).await
    }

    async fn leave(&self) -> Result<(), StoreError> {
        self.0.leave().await
    }
}
