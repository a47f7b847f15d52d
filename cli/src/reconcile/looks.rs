//! The looks at both sides, in the order that makes them comparable: see [`super::judge`].

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use shared::hash::partition_of;
use tokio::sync::mpsc;

use super::copy::Rows;
use super::judge::{Beginning, Edges, Knowledge, Output, SKEW};
use super::kafka::{Cluster, Reach, Span, Visibility};
use super::postgres::{Consumer, NumberedTopic, Store, Table};
use super::progress::Progress;
use super::record::Record;
use super::topic::{Topic, blocking, plan_input, plan_outputs};
use super::window::{Millis, Window};
use crate::config::Settings;

/// Encoded rows on their way from Kafka to Postgres: so many bytes at a time, so many times.
const CHUNK_BYTES: usize = 64 * 1024;
const CHUNKS: usize = 16;
/// Claims are thinned a while after their retention: those so close to it are not relied upon.
const CLAIM_MARGIN: Millis = 3_600 * 1_000;

/// Everything that was looked at, ready to be compared.
#[derive(Debug)]
pub struct Looks {
    /// The session with the snapshot and the temporary tables.
    pub store: Store,
    /// The input topic, where the intake is judged.
    pub input: Option<Topic>,
    /// Topics that rows go to, by their numbers.
    pub outputs: Vec<Topic>,
    /// The consumer's numbers.
    pub consumer: Consumer,
    /// What the judge needs to know.
    pub known: Knowledge,
    /// Ends of the input, looked at after the committed offsets.
    pub input_ends: BTreeMap<i32, Reach>,
    /// Outbox rows, of every topic.
    pub rows: u64,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// Looks at both sides.
pub async fn look(settings: &Settings, window: &Window, progress: &Progress) -> anyhow::Result<Looks> {
    let cluster = Cluster::new(&settings.kafka);
    let mut notes = Vec::new();
    progress.step("connecting to Postgres and Kafka");
    let mut store = Store::open(&settings.database).await?;
    let topics = blocking(&cluster, Cluster::topics).await?;
    let mut input = plan_input(settings, window, &topics, &mut store, &mut notes).await?;
    let mut outputs = plan_outputs(settings, window, &topics, &mut store, &mut notes).await?;
    let numbered = outputs.iter().map(|topic| NumberedTopic {
        name: topic.name.clone(),
        is_read: topic.is_read,
    });
    store.number(&numbered.collect::<Vec<_>>()).await?;

    // What is there by now is copied before anything is held still: this is most of the time.
    if let Some(topic) = &mut input {
        topic.span(&cluster, window, Visibility::Committed).await?;
    }
    for topic in outputs.iter_mut().filter(|topic| topic.is_read) {
        topic.span(&cluster, window, Visibility::Written).await?;
    }
    progress.expect(input.iter().chain(&outputs).map(Topic::len).sum());
    if let Some(topic) = &input {
        copy_input(&mut store, &cluster, topic, progress).await?;
    }
    let mut repartitioned = vec![false; outputs.len()];
    for (number, topic) in outputs.iter().enumerate().filter(|(_, topic)| topic.is_read) {
        let spans = topic.spans.values().copied().collect();
        repartitioned[number] |= copy_output(&mut store, &cluster, number, topic, spans, progress).await?;
    }
    store.analyze().await?;

    // From here on the order counts.
    progress.step("looking at offsets and ends");
    let settled = ends(&cluster, &outputs).await?;
    let committed = match &input {
        Some(topic) => {
            let (name, partitions) = (topic.name.clone(), topic.partitions.clone());
            blocking(&cluster, move |cluster| cluster.committed(&name, &partitions)).await?
        }
        None => BTreeMap::new(),
    };
    progress.step("taking the snapshot");
    let input_name = input.as_ref().map_or("", |topic| topic.name.as_str());
    let facts = store.take_snapshot(settings.consumer(), input_name).await?;
    progress.step("reading the outbox");
    let rows = store.take_rows().await?;
    let last = ends(&cluster, &outputs).await?;
    let input_ends = match &input {
        Some(topic) => topic.reaches(&cluster, Visibility::Committed).await?,
        None => BTreeMap::new(),
    };

    progress.step("reading what came meanwhile");
    for (number, topic) in outputs.iter_mut().enumerate() {
        let Some(reaches) = last.get(&number) else { continue };
        let tail = topic.grow(reaches, window);
        progress.expect_more(tail.iter().map(Span::len).sum());
        repartitioned[number] |= copy_output(&mut store, &cluster, number, topic, tail, progress).await?;
    }
    progress.step("finding first occurrences");
    store.take_firsts().await?;
    store.analyze().await?;

    let claims_kept = i64::from(settings.retention.claims_days) * 86_400_000;
    let consumer = Consumer {
        consumer_id: facts.consumer_id.unwrap_or(-1), // nobody's
        topic_id: facts.topic_id,
    };
    let mut known = Knowledge {
        now: facts.now_ms,
        claims_kept,
        committed,
        rows_from_id: facts.rows_from_id,
        rows_from: facts
            .is_leaf_dropped
            .then(|| facts.oldest_row_ms.unwrap_or(facts.now_ms)),
        ..Knowledge::default()
    };
    let kept_since = facts.now_ms - claims_kept + CLAIM_MARGIN;
    store
        .claimed_from(consumer, kept_since, |row| {
            known.claims_kept_from.insert(row.partition, row.offset);
        })
        .await?;
    known.outputs = edges(&mut store, &outputs, &settled, &last, &repartitioned, window).await?;
    if let Some(topic) = &mut input {
        topic.removed = input_ends.values().map(|reach| reach.low.unsigned_abs()).sum();
    }
    Ok(Looks {
        store,
        input,
        outputs,
        consumer,
        known,
        input_ends,
        rows,
        notes,
    })
}

/// How far the output topics reach now, by their numbers.
async fn ends(cluster: &Cluster, outputs: &[Topic]) -> anyhow::Result<BTreeMap<usize, BTreeMap<i32, Reach>>> {
    let mut ends = BTreeMap::new();
    for (number, topic) in outputs.iter().enumerate().filter(|(_, topic)| topic.is_read) {
        ends.insert(number, topic.reaches(cluster, Visibility::Written).await?);
    }
    Ok(ends)
}

async fn copy_input(store: &mut Store, cluster: &Cluster, topic: &Topic, progress: &Progress) -> anyhow::Result<()> {
    progress.step(&format!("reading {}", topic.name));
    let spans = topic.spans.values().copied().collect();
    copy(
        store,
        cluster,
        Table::Input,
        topic.name.clone(),
        spans,
        progress,
        |record, rows| {
            record.append_input(rows);
        },
    )
    .await
}

/// Returns whether a record lies where the present count of partitions would not put it.
async fn copy_output(
    store: &mut Store,
    cluster: &Cluster,
    number: usize,
    topic: &Topic,
    spans: Vec<Span>,
    progress: &Progress,
) -> anyhow::Result<bool> {
    progress.step(&format!("reading {}", topic.name));
    let number = i32::try_from(number).context("there are fewer topics than numbers")?;
    let count = i32::try_from(topic.partitions.len()).context("there are fewer partitions than numbers")?;
    let has_moved = Arc::new(AtomicBool::new(false));
    let moved = Arc::clone(&has_moved);
    copy(
        store,
        cluster,
        Table::Record,
        topic.name.clone(),
        spans,
        progress,
        move |record, rows| {
            record.append_output(number, rows);
            // Whoever else writes to the topic may place records as they like.
            if let (Some(event_id), Some(_)) = (record.published_id(), record.outbox_id)
                && partition_of(record.key, event_id, count) != record.partition
            {
                moved.store(true, Ordering::Relaxed);
            }
        },
    )
    .await?;
    Ok(has_moved.load(Ordering::Relaxed))
}

/// Reads on a thread of its own, encodes there, and copies here: memory holds the chunks between the two.
async fn copy(
    store: &mut Store,
    cluster: &Cluster,
    table: Table,
    topic: String,
    spans: Vec<Span>,
    progress: &Progress,
    mut encode: impl FnMut(&Record<'_>, &mut Rows) + Send + 'static,
) -> anyhow::Result<()> {
    if spans.iter().all(Span::is_empty) {
        return Ok(());
    }
    let visibility = match table {
        Table::Input => Visibility::Committed,
        Table::Record => Visibility::Written,
    };
    let (chunks, filled) = mpsc::channel(CHUNKS);
    let progress = progress.clone();
    let reading = blocking(cluster, move |cluster| {
        let mut rows = Rows::default();
        cluster.read(&topic, visibility, &spans, |record| {
            encode(record, &mut rows);
            progress.done(1);
            // Whoever receives has failed, and says why.
            if rows.len() >= CHUNK_BYTES && chunks.blocking_send(rows.take()).is_err() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if !rows.is_empty() {
            let _ = chunks.blocking_send(rows.take());
        }
        Ok(())
    });
    let (read, copied) = tokio::join!(reading, store.fill(table, filled));
    copied?;
    read
}

async fn edges(
    store: &mut Store,
    outputs: &[Topic],
    settled: &BTreeMap<usize, BTreeMap<i32, Reach>>,
    last: &BTreeMap<usize, BTreeMap<i32, Reach>>,
    repartitioned: &[bool],
    window: &Window,
) -> anyhow::Result<Vec<Output>> {
    let mut lows = Vec::new();
    let mut known: Vec<Output> = Vec::with_capacity(outputs.len());
    for (number, topic) in outputs.iter().enumerate() {
        let mut output = Output {
            was_repartitioned: repartitioned[number],
            ..Output::default()
        };
        for span in topic.spans.values() {
            let reach = |of: &BTreeMap<usize, BTreeMap<i32, Reach>>| {
                of.get(&number)
                    .and_then(|topic| topic.get(&span.partition))
                    .copied()
                    .unwrap_or_default()
            };
            let low = span.from.max(reach(last).low);
            let by_time = topic.since.get(&span.partition).copied().unwrap_or(span.from);
            let beginning = match window.since {
                _ if topic.is_compacted => Beginning::Compacted,
                _ if low == 0 => Beginning::Whole,
                Some(since) if low <= by_time => Beginning::Since(since.saturating_sub(2 * SKEW)),
                _ => {
                    lows.push((i32::try_from(number)?, span.partition, low));
                    Beginning::Cut(None)
                }
            };
            output.partitions.insert(
                span.partition,
                Edges {
                    settled: reach(settled).high,
                    lost_until: beginning.lost_until(),
                },
            );
        }
        known.push(output);
    }
    store
        .first_records(&lows, |first| {
            let topic = usize::try_from(first.topic)
                .ok()
                .and_then(|number| known.get_mut(number));
            if let Some(edges) = topic.and_then(|topic| topic.partitions.get_mut(&first.partition)) {
                edges.lost_until = Beginning::Cut(first.timestamp_ms).lost_until();
            }
        })
        .await?;
    Ok(known)
}
