//! Which topics are looked at, and which part of them.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};

use super::judge::SKEW;
use super::kafka::{Cluster, Reach, Span, Visibility, expect_topic};
use super::postgres::Store;
use super::window::{Millis, Window};
use crate::config::Settings;

/// A topic as it was read.
#[derive(Debug, Clone, Default)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its partitions; none where the topic does not exist.
    pub partitions: Vec<i32>,
    /// Whether it is looked at.
    pub is_read: bool,
    /// What was read of it.
    pub spans: BTreeMap<i32, Span>,
    /// Offsets below what it still has: removed by retention.
    pub removed: u64,
    pub(super) is_compacted: bool,
    /// Where the span of time begins, by partition.
    pub(super) since: BTreeMap<i32, i64>,
}

pub(super) async fn plan_input(
    settings: &Settings,
    window: &Window,
    topics: &BTreeMap<String, Vec<i32>>,
    store: &mut Store,
    notes: &mut Vec<String>,
) -> anyhow::Result<Option<Topic>> {
    let name = &settings.topics.input;
    if !window.has_topic(name) {
        notes.push(format!("the intake is not judged: --topic leaves {name} out"));
        return Ok(None);
    }
    let consumers = store.consumers().await?;
    if consumers.is_empty() && !topics.contains_key(name) {
        notes.push(format!(
            "the intake is not judged: nothing was ever claimed here, and there is no topic {name} (topics.input)"
        ));
        return Ok(None);
    }
    expect_topic(topics, name, "topics.input")?;
    let consumer = settings.consumer();
    ensure!(
        consumers.is_empty() || consumers.iter().any(|known| known == consumer),
        "nothing was ever claimed by {consumer}; consumers in this database: {}. Set kafka.group, or intake.consumer \
         where it differs, as the triage service has it",
        consumers.join(", ")
    );
    Ok(Some(Topic {
        name: name.clone(),
        partitions: partitions_of(topics, name, window)?,
        is_read: true,
        ..Topic::default()
    }))
}

pub(super) async fn plan_outputs(
    settings: &Settings,
    window: &Window,
    topics: &BTreeMap<String, Vec<i32>>,
    store: &mut Store,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Topic>> {
    let mut names = store.topics().await?;
    names.extend([settings.topics.output.clone(), settings.topics.dead_letter()]);
    names.sort();
    names.dedup();
    for wanted in &window.topics {
        ensure!(
            *wanted == settings.topics.input || names.contains(wanted),
            "--topic {wanted}: neither the input (topics.input) nor a topic that outbox rows go to; known: {}, {}",
            settings.topics.input,
            names.join(", ")
        );
    }
    let mut outputs = Vec::with_capacity(names.len());
    for name in names {
        let is_read = window.has_topic(&name);
        if is_read && !topics.contains_key(&name) {
            notes.push(format!("topic {name} does not exist, or this login may not see it"));
        }
        outputs.push(Topic {
            partitions: partitions_of(topics, &name, window)?,
            is_read,
            name,
            ..Topic::default()
        });
    }
    Ok(outputs)
}

fn partitions_of(topics: &BTreeMap<String, Vec<i32>>, name: &str, window: &Window) -> anyhow::Result<Vec<i32>> {
    let all = topics.get(name).cloned().unwrap_or_default();
    let is_wanted = window.topics.iter().any(|wanted| wanted == name);
    if let Some(partition) = window.partition.filter(|_| is_wanted) {
        ensure!(
            all.contains(&partition),
            "--partition {partition}: topic {name} has the partitions {all:?}"
        );
    }
    Ok(all)
}

impl Topic {
    /// How many records are to be read.
    pub(super) fn len(&self) -> u64 {
        self.spans.values().map(Span::len).sum()
    }

    /// Chooses what is read of it.
    pub(super) async fn span(
        &mut self,
        cluster: &Cluster,
        window: &Window,
        visibility: Visibility,
    ) -> anyhow::Result<()> {
        let reaches = self.reaches(cluster, visibility).await?;
        if visibility == Visibility::Written {
            self.is_compacted = !self.partitions.is_empty() && cluster.is_compacted(&self.name).await;
        }
        if let Some(since) = window.since {
            let since = match visibility {
                Visibility::Committed => since,
                Visibility::Written => since.saturating_sub(SKEW), // it may be older than its row by its own clock
            };
            self.since = self.offsets_at(cluster, since).await?;
        }
        let until = match (window.until, visibility) {
            (Some(until), Visibility::Committed) => self.offsets_at(cluster, until).await?,
            _ => BTreeMap::new(), // what was made before may have been published long after
        };
        for (&partition, reach) in reaches
            .iter()
            .filter(|(partition, _)| window.has_partition(**partition))
        {
            let mut from = window.from_offset.unwrap_or(reach.low).max(reach.low);
            if window.since.is_some() {
                from = from.max(self.since.get(&partition).copied().unwrap_or(reach.high));
            }
            let mut to = window.to_offset.unwrap_or(reach.high).min(reach.high);
            to = to.min(until.get(&partition).copied().unwrap_or(to));
            self.spans.insert(
                partition,
                Span {
                    partition,
                    from,
                    to: to.max(from),
                },
            );
        }
        Ok(())
    }

    /// Takes in what has come since; returns it.
    pub(super) fn grow(&mut self, reaches: &BTreeMap<i32, Reach>, window: &Window) -> Vec<Span> {
        let mut tails = Vec::new();
        for span in self.spans.values_mut() {
            let Some(reach) = reaches.get(&span.partition) else {
                continue;
            };
            let to = window.to_offset.map_or(reach.high, |to| to.min(reach.high));
            if to > span.to {
                tails.push(Span {
                    from: span.to,
                    to,
                    ..*span
                });
                span.to = to;
            }
        }
        self.removed = reaches.values().map(|reach| reach.low.unsigned_abs()).sum();
        tails
    }

    pub(super) async fn reaches(
        &self,
        cluster: &Cluster,
        visibility: Visibility,
    ) -> anyhow::Result<BTreeMap<i32, Reach>> {
        let (name, partitions) = (self.name.clone(), self.partitions.clone());
        blocking(cluster, move |cluster| cluster.reaches(&name, &partitions, visibility)).await
    }

    async fn offsets_at(&self, cluster: &Cluster, moment: Millis) -> anyhow::Result<BTreeMap<i32, i64>> {
        let (name, partitions) = (self.name.clone(), self.partitions.clone());
        blocking(cluster, move |cluster| cluster.offsets_at(&name, &partitions, moment)).await
    }
}

/// librdkafka's calls block, and so do its clients when they are dropped.
pub(super) async fn blocking<T: Send + 'static>(
    cluster: &Cluster,
    work: impl FnOnce(&Cluster) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let cluster = cluster.clone();
    tokio::task::spawn_blocking(move || work(&cluster))
        .await
        .context("a call to Kafka panicked")?
}
