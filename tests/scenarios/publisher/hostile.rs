//! Outbox rows that nobody should write, among good ones: each is published, set aside with what mends it, or refused by
//! the schema, and none of them stops another.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use harness::hostile_rows::{Fate, HostileRows, Row, Topics};
use harness::stack::unique;
use harness::wait::{self, Seen};
use harness::{Ability, Stack, Triage, topics};
use shared::clock;
use sqlx::Row as _;
use uuid::Uuid;

use crate::publisher::refusals::SMALL_LIMIT;
use crate::publisher::{DRAINED, Outbox};
use crate::reconcile::reconcile;
use crate::triage::scene::Scene;

/// How many, unless `HOSTILE_ROWS` says it; `make hostile` asks for a hundred thousand.
const ROWS: usize = 4_000;
/// Limit of the small topic, in bytes, as [`SMALL_LIMIT`] has it.
const LIMIT: usize = 4_000;
/// Topics that are made only at the end.
const MISSING: usize = 5;
/// What a publisher may need in all.
const RESIDENT_MOST: u64 = 200 << 20;
/// How long a publisher may stand still.
const STILL: Duration = Duration::from_secs(60);

/// What was written, by what has to become of it.
#[derive(Default)]
struct Written {
    rows: Vec<(Row, Fate)>,
    refused: BTreeMap<String, usize>,
}

impl Written {
    fn count(&self, is_wanted: impl Fn(&Fate) -> bool) -> i64 {
        let wanted = self.rows.iter().filter(|(_, fate)| is_wanted(fate));
        i64::try_from(wanted.count()).expect("rows can be counted")
    }
}

async fn write(outbox: &Outbox<'_>, stream: &mut HostileRows, rows: usize) -> anyhow::Result<Written> {
    let mut connection = outbox.connect().await?;
    // Each row is a transaction of its own; to wait for each on the disk is not what is tried here.
    sqlx::query("set synchronous_commit = off")
        .execute(&mut connection)
        .await?;
    let mut written = Written::default();
    for (row, fate) in stream.take(rows) {
        match (row.insert(&mut connection).await, &fate) {
            (Ok(()), Fate::Refused) => panic!("the schema took {row:?}"),
            (Ok(()), _) => written.rows.push((row, fate)),
            (Err(error), Fate::Refused) => {
                let database = error.as_database_error();
                let code = database.and_then(|error| error.code()).unwrap_or_default();
                let constraint = database.and_then(|error| error.constraint()).unwrap_or_default();
                *written.refused.entry(format!("{code} {constraint}")).or_default() += 1;
            }
            (Err(error), _) => panic!("the schema refused {row:?}: {error}"),
        }
    }
    Ok(written)
}

/// Waits until no more rows are PENDING than these, as long as they become fewer.
async fn until_pending(outbox: &Outbox<'_>, expected: i64) -> anyhow::Result<()> {
    let mut before = i64::MAX;
    while before != expected {
        before = wait::until(&format!("fewer PENDING rows, {expected} in the end"), STILL, || async {
            let pending = outbox.statuses().await?.get("PENDING").copied().unwrap_or(0);
            Ok(Seen::when(pending, |pending| *pending < before || *pending == expected))
        })
        .await?;
    }
    Ok(())
}

/// Status, attempts and reason of each row, by its event.
async fn states(outbox: &Outbox<'_>) -> anyhow::Result<BTreeMap<Uuid, (String, i32, String)>> {
    let mut connection = outbox.connect().await?;
    let rows =
        sqlx::query("select event_id, status::text, publish_attempts, coalesce(last_error, '') from outbox_events")
            .fetch_all(&mut connection)
            .await?;
    Ok(rows
        .iter()
        .map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3))))
        .collect())
}

/// Ends the test unless the good rows stand in the order of their writing, those of a topic and key each.
async fn expect_order(outbox: &Outbox<'_>, written: &Written, topics: &[&str]) -> anyhow::Result<()> {
    let good = written.rows.iter().filter(|(_, fate)| *fate == Fate::InOrder);
    let turns: BTreeMap<_, _> = good.enumerate().map(|(turn, (row, _))| (row.event_id, turn)).collect();
    let mut met = BTreeMap::new();
    for topic in topics {
        let mut last = BTreeMap::new();
        for read in topics::read_all(&outbox.brokers, topic).await? {
            let event_id = read.header("event-id").and_then(|id| id.parse::<Uuid>().ok());
            let Some(&turn) = turns.get(&event_id) else { continue };
            if met.insert(turn, ()).is_some() {
                continue; // the same event once more
            }
            let before = last.insert(read.key.clone(), turn);
            assert!(
                before < Some(turn),
                "{topic}: {event_id:?} of {:?} comes too late",
                read.key
            );
        }
    }
    assert_eq!(met.len(), turns.len(), "each good row is on its topic");
    Ok(())
}

#[tokio::test]
async fn hostile_rows_are_published_set_aside_or_refused_and_stop_nothing() -> anyhow::Result<()> {
    if Stack::shared().await?.skips("hostile-rows", &[Ability::Admin]) {
        return Ok(());
    }
    // given
    let from_environment = |name| std::env::var(name).ok()?.parse().ok();
    let rows = from_environment("HOSTILE_ROWS").unwrap_or(ROWS as u64) as usize;
    let seed = from_environment("HOSTILE_SEED").unwrap_or_else(|| clock::unix_millis().unsigned_abs());
    eprintln!("{rows} hostile rows, HOSTILE_SEED={seed}");
    let outbox = Outbox::shared("hostile-rows").await?;
    let places = Topics {
        large: outbox.topic("hostile-large", 3, &[]).await?,
        small: outbox.topic("hostile-small", 3, SMALL_LIMIT).await?,
        small_limit: LIMIT,
        missing: (0..MISSING).map(|_| unique("hostile-missing")).collect(),
    };
    let publisher = outbox.publisher("publisher").start().await?;

    // when: they are written while the publisher works, and the topics that were missing are made in the end
    let began = Instant::now();
    let written = write(&outbox, &mut HostileRows::new(seed, places.clone()), rows).await?;
    let until_written = began.elapsed();
    let waiting = written.count(|fate| *fate == Fate::Waits);
    until_pending(&outbox, waiting).await?;
    let until_others = began.elapsed();
    for name in &places.missing {
        topics::create(&outbox.brokers, name, 1, 1, &[]).await?;
    }
    until_pending(&outbox, 0).await?;
    let took = began.elapsed();

    // then: nothing was spent on rows that are well, and what is set aside says what and how to mend it
    let mut set_aside = BTreeMap::new();
    let states = states(&outbox).await?;
    for (row, fate) in &written.rows {
        let (status, attempts, reason) = &states[&row.event_id.unwrap_or_default()];
        let is_published = status == "PUBLISHED";
        match fate {
            Fate::InOrder | Fate::Waits => assert!(is_published && *attempts == 0, "{attempts} {reason} {row:?}"),
            Fate::Published => assert!(is_published, "{reason} {row:?}"),
            Fate::SetAside(words) => {
                let says = words.iter().all(|word| reason.contains(word));
                assert!(
                    status == "FAILED" && *attempts == 1 && says,
                    "{status} {attempts} {reason} {row:?}"
                );
                *set_aside.entry(words[0]).or_insert(0) += 1;
            }
            Fate::EitherWay => {
                let is_over = status == "FAILED" && *attempts == 1 && reason.contains("max.message.bytes");
                assert!(
                    (is_published && *attempts == 0) || is_over,
                    "{status} {attempts} {reason} {row:?}"
                );
            }
            Fate::Refused => unreachable!("the schema refuses it"),
        }
    }
    let resident = publisher.resident_peak_bytes()? >> 20;
    eprintln!(
        "{} rows, written after {until_written:?}, all but those of missing topics done after {until_others:?}, {took:?} in all; set aside {set_aside:?}; refused {:?}; at \
         most {resident} MiB resident",
        written.rows.len(),
        written.refused
    );
    assert!(resident <= RESIDENT_MOST >> 20, "{resident} MiB were resident");
    assert!(written.refused.len() >= 6, "{:?}", written.refused);
    expect_order(&outbox, &written, &[&places.large, &places.small]).await?;
    assert_eq!(publisher.metric("outbox_swept_events_total").await?, Some(0.0));
    assert_eq!(publisher.metric("outbox_producer_rebuilds_total").await?, Some(0.0));
    // By them a silent broker and a stalled partition are seen.
    assert!(
        !publisher.has_logged("Could not parse statistics")?,
        "a row's topic has made them illegible"
    );
    assert_eq!(publisher.terminate(DRAINED).await?, 0);
    reconcile(&scene(&outbox), &[]).await?.expect_clean();
    Ok(())
}

/// What the tool has to know; there is no intake.
fn scene(outbox: &Outbox<'static>) -> Scene {
    let nowhere = || unique("hostile-nowhere");
    Scene {
        stack: outbox.stack,
        brokers: outbox.brokers.clone(),
        database: outbox.database.clone(),
        triage: Triage {
            consumer: nowhere(),
            group: nowhere(),
            inputs: vec![nowhere()],
            output: nowhere(),
            dead_letter: nowhere(),
        },
    }
}
