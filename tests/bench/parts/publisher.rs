//! How fast a filled outbox is drained: the publisher, the limit, and what others do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use harness::Running;
use harness::process::expect_code;
use serde::Serialize;

use super::reconcile;
use crate::course::{Course, watch};
use crate::ends::Ends;
use crate::fill::{self, Keys};
use crate::peers::{Peer, Task, Who};
use crate::site::{PARTITIONS, Site};

/// How long a start or a drain may take.
const SOON: std::time::Duration = std::time::Duration::from_secs(60);
/// Keys of the rows.
const KEYS: Keys = Keys::Uniform(1_000);

/// Every contestant's rounds, by its name.
#[derive(Debug, Default, Serialize)]
pub struct Drain {
    /// Courses, one a round.
    pub courses: BTreeMap<&'static str, Vec<Course>>,
    /// Share of our settles that were HOT updates, one a round.
    pub hot_share: Vec<f64>,
    /// Most bytes that our process had resident, one a round.
    pub resident: Vec<f64>,
}

/// Who takes part, and with how many rows at a time.
const PEERS: [(&str, Who, usize); 4] = [
    ("limit: the publisher's SQL", Who::ReadAndSettle, 500),
    ("row lease, batch 100", Who::RowLease, 100),
    ("row lease, batch 500", Who::RowLease, 500),
    ("locks held while producing, batch 500", Who::LocksHeld, 500),
];
/// The bare producer's name.
pub const PRODUCER: &str = "limit: a producer";
/// Our name.
pub const OURS: &str = "outbox-publisher";
/// Our name as it was built before.
const BEFORE: &str = "outbox-publisher before";

/// What is measured, how often.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Rows of a round.
    pub rows: u64,
    /// Rounds in which everybody takes a turn.
    pub rounds: usize,
    /// Only contestants whose name holds this.
    pub only: String,
    /// Where the services lie as they were before a change, to be measured beside those of now.
    pub before: Option<PathBuf>,
}

/// Everybody in turn, each on rows of its own.
///
/// # Errors
/// If anything fails, or reconcile finds something.
pub async fn drain(site: &Site, asked: &Asked, say: impl Fn(&str)) -> anyhow::Result<Drain> {
    let mut drain = Drain::default();
    let rows = asked.rows;
    // The broker compiles what it runs often: nobody is to pay for that alone.
    peer(site, Who::RowLease, 100, rows / 4).await?;
    producer(site, rows).await?;
    let is_asked = |name: &&str| name.contains(&asked.only);
    for round in 1..=asked.rounds {
        if is_asked(&OURS) {
            let ours = ours(site, rows, None).await.context(OURS)?;
            drain.add(&say, round, OURS, ours.course);
            drain.hot_share.push(ours.hot_share);
            drain.resident.push(ours.resident);
            if let Some(folder) = &asked.before {
                let before = self::ours(site, rows, Some(folder)).await.context(BEFORE)?;
                drain.add(&say, round, BEFORE, before.course);
            }
        }
        for (name, who, batch) in PEERS.into_iter().filter(|(name, ..)| is_asked(name)) {
            let course = peer(site, who, batch, rows).await.context(name)?;
            drain.add(&say, round, name, course);
        }
        if is_asked(&PRODUCER) {
            let course = producer(site, rows).await.context(PRODUCER)?;
            drain.add(&say, round, PRODUCER, course);
        }
    }
    Ok(drain)
}

impl Drain {
    fn add(&mut self, say: impl Fn(&str), round: usize, name: &'static str, course: Course) {
        let cpu = course.cpu.map_or_else(String::new, |cpu| {
            format!(
                "; CPU us a row: own {:.1}, Postgres {:.1}, broker {:.1}",
                cpu.own, cpu.postgres, cpu.broker
            )
        });
        say(&format!(
            "round {round}  {name:<38} {:>8.0} rows/s{cpu}; {:.0} bytes of log a row",
            course.per_second, course.wal_bytes
        ));
        self.courses.entry(name).or_default().push(course);
    }
}

/// What a round of ours shows beside its course.
struct Ours {
    course: Course,
    hot_share: f64,
    resident: f64,
}

async fn ours(site: &Site, rows: u64, built_in: Option<&Path>) -> anyhow::Result<Ours> {
    let database = site.database("drain").await?;
    let topic = site.topic("drain").await?;
    fill::outbox(&database, &topic, rows, KEYS).await?;
    let ends = Ends::new(&site.stack.brokers(), &topic, PARTITIONS)?;
    let mut service = site.publisher("publisher", &database);
    if let Some(folder) = built_in {
        service = service.built_in(folder);
    }
    let publisher = service.start().await?;
    let settled = async || Ok(settled(&publisher).await? >= rows);
    let course = watch(site, &[&publisher], &ends, rows, settled).await?;
    let resident = publisher.resident_peak_bytes()? as f64;
    expect_code(OURS, publisher.terminate(SOON).await?, 0)?;
    let mut connection = database.connect().await?;
    let hot_share = hot_share(&mut connection).await?;
    drop(connection);
    reconcile(site, &database, &[]).await?;
    site.remove(&database, &[&topic]).await?;
    Ok(Ours {
        course,
        hot_share,
        resident,
    })
}

/// Rows that a publisher has marked as published.
pub(super) async fn settled(publisher: &Running) -> anyhow::Result<u64> {
    Ok(publisher.metric("outbox_settled_events_total").await?.unwrap_or(0.0) as u64)
}

/// Share of the updates of the outbox that were HOT.
pub(super) async fn hot_share(connection: &mut sqlx::PgConnection) -> anyhow::Result<f64> {
    let share = "select sum(n_tup_hot_upd)::float8 / nullif(sum(n_tup_upd), 0)::float8 \
                   from pg_stat_user_tables where relname ~ '^outbox_events_[0-9]+$'";
    let share: Option<f64> = sqlx::query_scalar(share).fetch_one(connection).await?;
    share.context("the outbox has had updates")
}

async fn peer(site: &Site, who: Who, batch: usize, rows: u64) -> anyhow::Result<Course> {
    let database = site.database("peer").await?;
    let topic = site.topic("peer").await?;
    if who == Who::ReadAndSettle {
        fill::outbox(&database, &topic, rows, KEYS).await?;
    } else {
        fill::leased_rows(&database, &topic, rows, KEYS).await?;
    }
    let task = Task {
        database: database.url.clone(),
        brokers: site.stack.brokers(),
        topic: topic.clone(),
        batch,
        ..Task::of(who)
    };
    let course = Peer::start(&task).await?.course(site, rows).await?;
    site.remove(&database, &[&topic]).await?;
    Ok(course)
}

async fn producer(site: &Site, rows: u64) -> anyhow::Result<Course> {
    let topic = site.topic("produce").await?;
    let task = Task {
        brokers: site.stack.brokers(),
        topic: topic.clone(),
        rows,
        ..Task::of(Who::Produce)
    };
    let course = Peer::start(&task).await?.course(site, rows).await?;
    harness::topics::delete(&site.stack.brokers(), &topic).await?;
    Ok(course)
}
