//! How fast a filled outbox is drained: the publisher, the limit, and what others do.

use std::path::Path;

use anyhow::Context;
use harness::Running;
use harness::process::expect_code;

use super::{Asked, Found, SOON, WARM_ROWS, reconcile, resident_peak};
use crate::counted::{Counted, Counters};
use crate::course::{Course, watch};
use crate::ends::Ends;
use crate::fill::{self, Keys};
use crate::peers::{Peer, Task, Who};
use crate::site::{PARTITIONS, Site};
use crate::table::Bound;

/// Who takes part, and with how many rows at a time.
const PEERS: [(&str, Who, usize); 4] = [
    (SQL, Who::ReadAndSettle, 500),
    ("row lease, batch 100", Who::RowLease, 100),
    (ROW_LEASE, Who::RowLease, 500),
    (LOCKS_HELD, Who::LocksHeld, 500),
];
const SQL: &str = "limit: the publisher's SQL";
const ROW_LEASE: &str = "row lease, batch 500";
const LOCKS_HELD: &str = "locks held while producing, batch 500";
const PRODUCER: &str = "limit: a producer";
const OURS: &str = "outbox-publisher";
const BEFORE: &str = "outbox-publisher before";

/// Everybody in turn, each on rows of its own.
///
/// # Errors
/// If anything fails, or reconcile finds something.
pub async fn measure(site: &Site, asked: &Asked) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let (mut resident, mut counted) = (Vec::new(), Vec::new());
    let rows = asked.rows;
    // The broker compiles what it runs often: nobody is to pay for that alone.
    let many = rows.max(WARM_ROWS);
    peer(site, Who::RowLease, 500, many / 4).await?;
    producer(site, many).await?;
    ours(site, many, None).await?;
    for _ in 0..asked.rounds {
        if asked.wants(OURS) {
            let ours = ours(site, rows, None).await.context(OURS)?;
            found.heats.add(OURS, ours.course);
            resident.push(ours.resident);
            counted.push(ours.counted);
            if let Some(folder) = &asked.before {
                let before = self::ours(site, rows, Some(folder)).await.context(BEFORE)?;
                found.heats.add(BEFORE, before.course);
            }
        }
        for (name, who, batch) in PEERS.into_iter().filter(|(name, ..)| asked.wants(name)) {
            found.heats.add(name, peer(site, who, batch, rows).await.context(name)?);
        }
        if asked.wants(PRODUCER) {
            found.heats.add(PRODUCER, producer(site, rows).await.context(PRODUCER)?);
        }
    }
    judge(&mut found, resident, &counted);
    Ok(found)
}

fn judge(found: &mut Found, resident: Vec<f64>, counted: &[Counted]) {
    use Bound::{AtLeast, AtMost};
    found.costs(OURS, "publisher drain");
    found.counted("publisher drain", counted);
    let share = found.heats.cpu_share(&[SQL, PRODUCER], OURS);
    found.row(
        "publisher drain, share of the limit",
        "",
        share,
        Some(AtLeast(0.65)),
        "CPU of the same SQL by a bare client and of a bare producer, as a share of ours",
    );
    for (other, goal) in [(ROW_LEASE, 2.2), (LOCKS_HELD, 1.4)] {
        let rates = found.heats.rates(OURS, other);
        found.row(
            &format!("publisher drain against: {other}"),
            "",
            rates,
            Some(AtLeast(goal)),
            "",
        );
    }
    found.row(
        "publisher drain against the build before",
        "",
        found.heats.rates(OURS, BEFORE),
        None,
        "",
    );
    let hot_shares = counted.iter().map(|counted| counted.hot_share).collect();
    found.row("HOT share of settles", "", hot_shares, Some(AtLeast(0.99)), "");
    found.row(
        "outbox-publisher resident while it drains",
        "MB",
        resident,
        Some(AtMost(60.0)),
        "",
    );
}

/// What a round of ours shows beside its course.
pub(super) struct Ours {
    pub(super) course: Course,
    resident: f64,
    counted: Counted,
}

pub(super) async fn ours(site: &Site, rows: u64, built_in: Option<&Path>) -> anyhow::Result<Ours> {
    let database = site.database("drain").await?;
    let topic = site.topic("drain").await?;
    fill::outbox(&database, &topic, rows, Keys::Even).await?;
    let ends = Ends::new(&site.stack.brokers(), &topic, PARTITIONS)?;
    let mut service = site.publisher("publisher", &database);
    if let Some(folder) = built_in {
        service = service.built_in(folder);
    }
    let before = Counters::now(site, &database).await?;
    let log_before = site.account().await?.wal_bytes;
    let publisher = service.start().await?;
    let settled = async || Ok(settled(&publisher).await? >= rows);
    let mut course = watch(site, &[&publisher], rows, async || ends.sum(), settled).await?;
    course.wal_bytes = site.log_since(log_before, rows).await?;
    let resident = resident_peak(&publisher)?;
    expect_code(OURS, publisher.terminate(SOON).await?, 0)?;
    let counted = before.until_now(site, &database, rows).await?;
    reconcile(site, &database, &[]).await?;
    site.remove(&database, &[&topic]).await?;
    Ok(Ours {
        course,
        resident,
        counted,
    })
}

/// Rows that a publisher has marked as published.
pub(super) async fn settled(publisher: &Running) -> anyhow::Result<u64> {
    Ok(publisher.metric("outbox_settled_events_total").await?.unwrap_or(0.0) as u64)
}

async fn peer(site: &Site, who: Who, batch: usize, rows: u64) -> anyhow::Result<Course> {
    let database = site.database("peer").await?;
    let topic = site.topic("peer").await?;
    if who == Who::ReadAndSettle {
        fill::outbox(&database, &topic, rows, Keys::Even).await?;
    } else {
        fill::leased_rows(&database, &topic, rows).await?;
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
