//! How the drain of an outbox changes with what lies in it, with its keys, and with how many work on it.

use std::time::Duration;

use anyhow::Context;
use harness::Running;
use harness::postgres::Stop;
use harness::process::expect_code;
use harness::wait::{self, Seen};
use sqlx::Connection;

use super::end_to_end::{BUCKETS, until_it_holds};
use super::publisher::settled;
use super::snapshot::Snapshot;
use super::{Asked, Found, SOON, reconcile};
use crate::course::{Course, watch};
use crate::ends::Ends;
use crate::fill::{self, Keys};
use crate::site::{PARTITIONS, Site};
use crate::table::Bound;

/// Rows of the backlog that the others are compared with, and of each that differs in something else.
const ROWS: u64 = 100_000;
/// Rows where several instances share the work; a start is not to be most of it.
const SHARED_ROWS: u64 = 200_000;

const BASE: &str = "100 thousand rows";
const LARGE: &str = "a large backlog";
const COLD: &str = "large, Postgres just started";
const KEPT: &str = "above many published rows";
const SNAPSHOT: &str = "large, a snapshot held";
const ZIPF: &str = "keys by Zipf's law";
const HALF: &str = "half of all rows of one key";
const BESIDE: &str = "beside a poisoned key with many followers";
const FOLLOWERS: &str = "many followers of one key, once it is given up";
const INSTANCES: [(&str, usize); 4] = [
    ("one instance", 1),
    ("two instances", 2),
    ("four instances", 4),
    ("eight instances", 8),
];

/// What lies in the outbox, and who drains it.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    rows: u64,
    keys: Keys,
    /// Rows that were published before.
    published: u64,
    /// Postgres is started again, so that nothing lies in its own memory; the system's cache stays.
    is_cold: bool,
    /// A transaction reads from before the first row until after the last.
    holds_snapshot: bool,
}

impl Case {
    const fn of(name: &'static str, rows: u64) -> Self {
        Self {
            name,
            rows,
            keys: Keys::Even,
            published: 0,
            is_cold: false,
            holds_snapshot: false,
        }
    }
}

/// Everything in turn, in every round.
///
/// # Errors
/// If anything fails, or reconcile finds something.
pub async fn measure(site: &Site, asked: &Asked) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let large = asked.backlog;
    let cases = [
        Case::of(BASE, ROWS),
        Case::of(LARGE, large),
        Case {
            holds_snapshot: true,
            ..Case::of(SNAPSHOT, large)
        },
        Case {
            is_cold: true,
            ..Case::of(COLD, large)
        },
        Case {
            published: large,
            ..Case::of(KEPT, ROWS)
        },
        Case {
            keys: Keys::Zipf,
            ..Case::of(ZIPF, ROWS)
        },
        Case {
            keys: Keys::HalfIsOne,
            ..Case::of(HALF, ROWS)
        },
    ];
    for _ in 0..3 {
        drain(site, Case::of(BASE, ROWS)).await?; // the broker compiles what it runs often
    }
    for _ in 0..asked.rounds {
        for case in cases.into_iter().filter(|case| asked.wants(case.name)) {
            found.heats.add(case.name, drain(site, case).await.context(case.name)?);
        }
        if asked.wants(BESIDE) || asked.wants(FOLLOWERS) {
            let (beside, followers) = poisoned(site, ROWS, large).await.context(BESIDE)?;
            found.heats.add(BESIDE, beside);
            found.heats.add(FOLLOWERS, followers);
        }
        for (name, instances) in INSTANCES.into_iter().filter(|(name, _)| asked.wants(name)) {
            found.heats.add(name, shared(site, instances).await.context(name)?);
        }
    }
    judge(&mut found, large);
    Ok(found)
}

fn judge(found: &mut Found, large: u64) {
    use Bound::AtLeast;
    let mut note = format!("large and many are {large} rows (BACKLOG={large})");
    let rows = [
        (LARGE, BASE, Some(AtLeast(0.9))),
        (COLD, LARGE, None),
        (SNAPSHOT, LARGE, Some(AtLeast(0.97))),
        (KEPT, BASE, None),
        (ZIPF, BASE, None),
        (HALF, BASE, None),
        (BESIDE, BASE, None),
        (FOLLOWERS, BASE, None),
        (INSTANCES[1].0, INSTANCES[0].0, Some(AtLeast(0.95))),
        (INSTANCES[2].0, INSTANCES[0].0, None),
        (INSTANCES[3].0, INSTANCES[0].0, None),
    ];
    for (one, other, goal) in rows {
        let rates = found.heats.rates(one, other);
        found.row(
            &format!("drain, {one}, against: {other}"),
            "",
            rates,
            goal,
            &std::mem::take(&mut note),
        );
    }
}

async fn drain(site: &Site, case: Case) -> anyhow::Result<Course> {
    let database = site.database("growth").await?;
    let topic = site.topic("growth").await?;
    let snapshot = if case.holds_snapshot {
        Some(Snapshot::take(&database).await?)
    } else {
        None
    };
    fill::published(&database, &topic, case.published).await?;
    fill::outbox(&database, &topic, case.rows, case.keys).await?;
    if case.is_cold {
        let postgres = site
            .stack
            .postgres()
            .context("only a Postgres of ours can be started again")?;
        postgres.restart(Stop::Fast).await?;
        site.watch_again().await?;
    }
    let ends = Ends::new(&site.stack.brokers(), &topic, PARTITIONS)?;
    let publisher = site.publisher("publisher", &database).start().await?;
    let is_settled = async || Ok(settled(&publisher).await? >= case.rows);
    let course = watch(site, &[&publisher], case.rows, async || ends.sum(), is_settled).await?;
    end(vec![publisher]).await?;
    if let Some(snapshot) = snapshot {
        snapshot.let_go().await?;
    }
    if case.published == 0 {
        // Rows that were written as published have no record to be found.
        reconcile(site, &database, &[]).await?;
    }
    site.remove(&database, &[&topic]).await?;
    Ok(course)
}

/// Rows of other keys beside a row that cannot be sent and its followers; then the followers, once it is given up.
async fn poisoned(site: &Site, rows: u64, followers: u64) -> anyhow::Result<(Course, Course)> {
    let database = site.database("poisoned").await?;
    let topic = site.topic("poisoned").await?;
    fill::poisoned(&database, &topic, followers).await?;
    fill::outbox(&database, &topic, rows, Keys::Even).await?;
    let ends = Ends::new(&site.stack.brokers(), &topic, PARTITIONS)?;
    let publisher = site
        .publisher("publisher", &database)
        .set("RETRY__AFTER_FAILED", "halt")
        .start()
        .await?;
    let sum = async || ends.sum();
    let is_settled = async || Ok(settled(&publisher).await? >= rows);
    let beside = watch(site, &[&publisher], rows, sum, is_settled).await?;
    let mut connection = database.connect().await?;
    wait::until("the poisoned row to be set aside", SOON, || async {
        let failed = publisher.metric("outbox_failed_events_total").await?;
        Ok(Seen::when(failed, |failed| *failed == Some(1.0)))
    })
    .await?;
    let given_up = sqlx::query("delete from outbox_events where status = 'FAILED'")
        .execute(&mut connection)
        .await?;
    anyhow::ensure!(given_up.rows_affected() == 1, "one row was poisoned");
    let further = async || Ok(ends.sum()?.saturating_sub(rows));
    let all_settled = async || Ok(settled(&publisher).await? >= rows + followers);
    let course = watch(site, &[&publisher], followers, further, all_settled).await?;
    end(vec![publisher]).await?;
    connection.close().await?;
    reconcile(site, &database, &[]).await?;
    site.remove(&database, &[&topic]).await?;
    Ok((beside, course))
}

/// Rows that come when so many instances have shared the buckets.
async fn shared(site: &Site, instances: usize) -> anyhow::Result<Course> {
    const NAMES: [&str; 8] = ["p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8"];
    let database = site.database("shared").await?;
    let topic = site.topic("shared").await?;
    let ends = Ends::new(&site.stack.brokers(), &topic, PARTITIONS)?;
    let mut publishers = Vec::new();
    for name in &NAMES[..instances] {
        publishers.push(site.publisher(name, &database).start().await?);
    }
    let share = BUCKETS / instances as f64;
    for publisher in &publishers {
        until_it_holds(publisher, share).await?;
    }
    fill::outbox(&database, &topic, SHARED_ROWS, Keys::Even).await?;
    let all: Vec<&Running> = publishers.iter().collect();
    let is_settled = async || {
        let mut sum = 0;
        for publisher in &publishers {
            sum += settled(publisher).await?;
        }
        Ok(sum >= SHARED_ROWS)
    };
    let course = watch(site, &all, SHARED_ROWS, async || ends.sum(), is_settled).await?;
    drop(all);
    end(publishers).await?;
    reconcile(site, &database, &[]).await?;
    site.remove(&database, &[&topic]).await?;
    Ok(course)
}

async fn end(publishers: Vec<Running>) -> anyhow::Result<()> {
    for publisher in publishers {
        expect_code(
            "outbox-publisher",
            publisher.terminate(SOON + Duration::from_secs(30)).await?,
            0,
        )?;
    }
    Ok(())
}
