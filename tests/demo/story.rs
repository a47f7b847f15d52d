//! What happens: a stream, two kills and a freeze in the midst of it, and a quiet end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use harness::feed::{Feeder, Pace, SentAt, Writer};
use harness::input::{Inputs, Kind};
use harness::report::{Faults, Latency};
use harness::tail::{self, Tail};
use harness::wait;
use harness::{Database, Stack, StackKind};

use crate::cast::{BUCKETS_HELD, Cast, PARTITIONS_HELD};
use crate::scene::{LEASE_MS, PARTITIONS, SESSION_MS, Scene};
use crate::screen::{Counts, Screen, grouped, span};

/// Buckets of an outbox.
const BUCKETS: u64 = 64;
/// How long the stream runs undisturbed between two faults.
const CALM: Duration = Duration::from_secs(3);
/// Pause between two looks at the live counts.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// How long the rest may take once the stream has ended.
const REST_WITHIN: Duration = Duration::from_secs(90);
/// The same stream in every run.
const SEED: u64 = 7;

/// What the demo itself has seen and done; the proof is read back apart from it.
#[derive(Debug)]
pub(crate) struct Told {
    /// Records written, by what they are.
    pub(crate) written: BTreeMap<Kind, u64>,
    /// From input to consumed outcome.
    pub(crate) latency: Option<Latency>,
    /// What was broken, and for how long.
    pub(crate) faults: BTreeMap<String, Faults>,
    /// Who played.
    pub(crate) cast: Arc<Cast>,
}

/// Plays the whole story; the services have drained when it returns.
pub(crate) async fn play(stack: &Stack, scene: &Scene, screen: &Arc<Screen>) -> anyhow::Result<Told> {
    let cast = Arc::new(Cast::default());
    screen.doing("starting two triage services and two publishers");
    for name in ["triage 1", "triage 2"] {
        cast.enter(name, &scene.triage(&name.replace(' ', "-"))).await?;
    }
    for name in ["publisher 1", "publisher 2"] {
        cast.enter(name, &scene.publisher(&name.replace(' ', "-"))).await?;
    }
    let now = Instant::now();
    for number in 1..=2 {
        cast.until_holds(&format!("triage {number}"), PARTITIONS_HELD, PARTITIONS as u64 / 2, now)
            .await?;
        cast.until_holds(&format!("publisher {number}"), BUCKETS_HELD, BUCKETS / 2, now)
            .await?;
    }

    let pace = pace_of(stack);
    let sent_at = SentAt::default();
    let tail = Tail::start(&scene.brokers, &[&scene.output, &scene.dead_letter], sent_at.clone()).await?;
    screen.begin_timeline();
    screen.event("2 triage services hold 6 partitions each, 2 publishers 32 buckets each");
    let inputs = Inputs::new(SEED, shared::clock::unix_millis());
    let feeder = Feeder::start(Writer::new(&scene.brokers, &scene.input)?, inputs, pace, Some(sent_at));
    screen.event(format!("the stream begins: {} records a second", grouped(pace.rate)));
    let watcher = tokio::spawn(watch(
        Arc::clone(screen),
        Arc::clone(&cast),
        scene.database.clone(),
        feeder.acknowledged(),
        tail.seen(),
    ));

    let mut faults = BTreeMap::new();
    tokio::time::sleep(CALM).await;
    faults.insert(
        "publisher_killed".to_owned(),
        kill_a_publisher(&cast, scene, screen).await?,
    );
    tokio::time::sleep(CALM).await;
    faults.insert("triage_killed".to_owned(), kill_a_triage(&cast, scene, screen).await?);
    tokio::time::sleep(CALM).await;
    faults.insert("publisher_frozen".to_owned(), freeze_a_publisher(&cast, screen).await?);
    tokio::time::sleep(CALM).await;

    let written = feeder.stop().await?;
    let ended = Instant::now();
    screen.event(format!(
        "the stream ends after {} records",
        grouped(written.values().sum())
    ));
    wait::until_done(&scene.database, REST_WITHIN, || scene.is_consumed()).await?;
    screen.event(format!(
        "every record decided, every outcome published, {} later",
        span(millis(ended.elapsed()))
    ));
    tokio::time::sleep(2 * LOOK_PAUSE).await; // the last counts are looked at, too
    watcher.abort();
    screen.doing("draining");
    cast.exit().await?;
    screen.end_live();
    screen.event("all four services drained and exited 0");
    let latency = Latency::of(tail.seen().latencies_ms());
    Ok(Told {
        written,
        latency,
        faults,
        cast,
    })
}

/// The mock cluster keeps 5 MiB of a partition, so its stream is a small one.
fn pace_of(stack: &Stack) -> Pace {
    match stack.choice().kind {
        StackKind::Embedded => Pace {
            rate: 300,
            most: 12_000,
        },
        StackKind::Kafka | StackKind::Containers | StackKind::Env => Pace {
            rate: 1_500,
            most: 150_000,
        },
    }
}

async fn kill_a_publisher(cast: &Cast, scene: &Scene, screen: &Screen) -> anyhow::Result<Faults> {
    let held = cast.holds("publisher 2", BUCKETS_HELD).await?;
    let at = Instant::now();
    cast.kill("publisher 2")?;
    screen.event(format!(
        "{} publisher 2 (SIGKILL): its {held} buckets wait for their lease of {}",
        screen.red("killed"),
        span(LEASE_MS as f64)
    ));
    let recovery = cast.until_holds("publisher 1", BUCKETS_HELD, BUCKETS, at).await?;
    screen.event(format!(
        "{} publisher 1 took them over after {}",
        screen.green("recovered:"),
        span(millis(recovery))
    ));
    cast.enter("publisher 2", &scene.publisher("publisher-2")).await?;
    cast.until_holds("publisher 2", BUCKETS_HELD, BUCKETS / 2, at).await?;
    screen.event("publisher 2 is back with its fair share of 32 buckets");
    Ok(Faults::of(vec![millis(recovery)]))
}

async fn kill_a_triage(cast: &Cast, scene: &Scene, screen: &Screen) -> anyhow::Result<Faults> {
    let held = cast.holds("triage 1", PARTITIONS_HELD).await?;
    let at = Instant::now();
    cast.kill("triage 1")?;
    screen.event(format!(
        "{} triage 1 (SIGKILL): its {held} partitions wait for the group's session of {}",
        screen.red("killed"),
        span(SESSION_MS as f64)
    ));
    let recovery = cast
        .until_holds("triage 2", PARTITIONS_HELD, PARTITIONS as u64, at)
        .await?;
    screen.event(format!(
        "{} triage 2 took them over after {}; what comes again is recognised",
        screen.green("recovered:"),
        span(millis(recovery))
    ));
    cast.enter("triage 1", &scene.triage("triage-1")).await?;
    cast.until_holds("triage 1", PARTITIONS_HELD, PARTITIONS as u64 / 2, at)
        .await?;
    screen.event("triage 1 is back with 6 partitions");
    Ok(Faults::of(vec![millis(recovery)]))
}

async fn freeze_a_publisher(cast: &Cast, screen: &Screen) -> anyhow::Result<Faults> {
    let at = Instant::now();
    cast.freeze("publisher 1")?;
    screen.event(format!(
        "{} publisher 1 (SIGSTOP), with everything that it had in hand",
        screen.red("froze")
    ));
    let recovery = cast.until_holds("publisher 2", BUCKETS_HELD, BUCKETS, at).await?;
    screen.event(format!(
        "{} publisher 2 took over after {}",
        screen.green("recovered:"),
        span(millis(recovery))
    ));
    tokio::time::sleep(Duration::from_millis(LEASE_MS / 2)).await;
    cast.thaw("publisher 1")?;
    screen.event(format!(
        "{} publisher 1 (SIGCONT) {} past its lease; it still believes in its 32 buckets",
        screen.yellow("thawed"),
        span(millis(at.elapsed()) - LEASE_MS as f64)
    ));
    let thawed = Instant::now();
    // The zombie still says 32, so its successor is asked first.
    cast.until_holds("publisher 2", BUCKETS_HELD, BUCKETS / 2, thawed)
        .await?;
    let back = cast
        .until_holds("publisher 1", BUCKETS_HELD, BUCKETS / 2, thawed)
        .await?;
    screen.event(format!(
        "publisher 1 met a newer epoch, let go, and had its fair share again after {}",
        span(millis(back))
    ));
    Ok(Faults::of(vec![millis(recovery)]))
}

/// Keeps the live line true until it is aborted.
async fn watch(
    screen: Arc<Screen>,
    cast: Arc<Cast>,
    database: Database,
    taken_in: Arc<AtomicU64>,
    seen: Arc<tail::Seen>,
) -> anyhow::Result<()> {
    let mut connection = database.connect().await.context("watch the decisions")?;
    loop {
        let decided: i64 = sqlx::query_scalar("select count(*) from decisions")
            .fetch_one(&mut connection)
            .await?;
        cast.look().await;
        screen.live(Counts {
            taken_in: taken_in.load(Ordering::Relaxed),
            decided: decided.unsigned_abs(),
            published: seen.unique(),
            suppressed: cast.suppressed(),
        });
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}
