//! The floor: figures below which the services would be a toy, each as a ratio or a bound that hardly
//! depends on the machine, all of one run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::feed::{SentAt, Writer};
use harness::input::Inputs;
use harness::report::{Goal, Latency};
use harness::tail::Tail;
use harness::{Ability, Stack, StackKind, Verdict};

use crate::cast::{BUCKETS_HELD, Cast};
use crate::scene::Scene;
use crate::screen::{Screen, grouped, span};
use bare::Bare;

/// How long the services may take for all records, so slow would be far below the floor.
const WORK_WITHIN: Duration = Duration::from_secs(300);
/// How long one record may take.
const RECORD_WITHIN: Duration = Duration::from_secs(10);
/// Pause between two lone records, longer than the publisher's longest pause: it has gone to sleep.
const IDLE_PAUSE: Duration = Duration::from_millis(300);
/// The same records in every run.
const SEED: u64 = 11;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Times that services and bare client take turns.
    pub(crate) rounds: usize,
    /// Records of a round.
    pub(crate) records: usize,
    /// Records that come alone.
    pub(crate) alone: usize,
}

impl Size {
    /// The timed run.
    pub(crate) const TIMED: Self = Self {
        rounds: 2,
        records: 100_000,
        alone: 50,
    };
    /// A short one, at the end of the demo.
    pub(crate) const SHORT: Self = Self {
        rounds: 1,
        records: 20_000,
        alone: 20,
    };
}

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Events a second from input topic to output topic, one instance of each service; each round's.
    pub(crate) end_to_end: Vec<f64>,
    /// Events a second by the bare client; each round's.
    pub(crate) bare: Vec<f64>,
    /// Most bytes resident of `triage-service`.
    pub(crate) triage_resident: u64,
    /// Most bytes resident of `outbox-publisher`.
    pub(crate) publisher_resident: u64,
    /// Of records that came alone.
    pub(crate) alone: Option<Latency>,
    /// What the judge said, of all rounds.
    pub(crate) verdict: Verdict,
}

impl Figures {
    /// The figures with their goals. A rate that this stack cannot show is left out.
    pub(crate) fn goals(&self) -> Vec<Goal> {
        let megabytes = |bytes: u64| (bytes as f64 / 1e5).round() / 10.0;
        let mut goals = Vec::new();
        if let Some(ratio) = self.ratio() {
            goals.push(Goal::at_least(
                "end to end, as a share of the same SQL by a bare client",
                ratio,
                0.25,
            ));
        }
        goals.push(Goal::at_most(
            "triage-service resident under load, MB",
            megabytes(self.triage_resident),
            100.0,
        ));
        goals.push(Goal::at_most(
            "outbox-publisher resident under load, MB",
            megabytes(self.publisher_resident),
            100.0,
        ));
        if let Some(alone) = self.alone {
            goals.push(Goal::at_most(
                "a record alone, input to outcome, median ms",
                (alone.p50 * 10.0).round() / 10.0,
                50.0,
            ));
        }
        goals
    }

    /// Share of the bare client's rate; all rounds count alike.
    fn ratio(&self) -> Option<f64> {
        let ratio = mean(&self.end_to_end)? / mean(&self.bare)?; // nothing without a bare client
        Some((ratio * 1_000.0).round() / 1_000.0)
    }

    /// Figures without a goal, for the report.
    pub(crate) fn named(&self) -> Vec<(String, f64)> {
        let rates = [
            ("end_to_end_events_per_second", &self.end_to_end),
            ("bare_client_events_per_second", &self.bare),
        ];
        rates
            .iter()
            .filter_map(|(name, rates)| Some(((*name).to_owned(), mean(rates)?.round())))
            .collect()
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    // The harmonic mean: of the time per event.
    (!values.is_empty()).then(|| values.len() as f64 / values.iter().map(|value| 1.0 / value).sum::<f64>())
}

/// Measures, step by step on the screen.
pub(crate) async fn measure(stack: &Stack, screen: &Arc<Screen>, size: Size) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    let has_rate = stack.lacks(Ability::LongTopics).is_none();
    for round in 1..=size.rounds {
        let is_last = round == size.rounds;
        let scene = Scene::new(stack, "floor").await?;
        // Without a rate, enough to have worked.
        let records = if has_rate { size.records } else { 1_000 };
        if size.rounds > 1 {
            screen.event(format!(
                "round {round} of {}: {} records wait on the input topic",
                size.rounds,
                grouped(records as u64)
            ));
        }
        let has_latency = is_last && stack.lacks(Ability::PromptFetch).is_none();
        let alone = if has_latency { size.alone } else { 0 };
        let rate = services(&scene, screen, records, alone, &mut figures).await?;
        if has_rate {
            figures.end_to_end.push(rate);
            screen.event(format!(
                "one triage service, one publisher: {} events a second from topic to topic",
                grouped(rate as u64)
            ));
            let rate = bare_client(stack, &scene, screen).await?;
            figures.bare.push(rate);
            screen.event(format!(
                "the same SQL by a bare client: {} events a second",
                grouped(rate as u64)
            ));
        }
        scene.clean_up(stack).await?;
    }
    screen.end_live();
    Ok(figures)
}

/// One instance of each service works off what waits, then single records. Returns events a second.
async fn services(
    scene: &Scene,
    screen: &Screen,
    records: usize,
    alone: usize,
    figures: &mut Figures,
) -> anyhow::Result<f64> {
    let writer = Arc::new(Writer::new(&scene.brokers, &scene.input)?);
    let inputs = Inputs::clean(SEED, shared::clock::unix_millis());
    screen.doing(format!("writing {} records", grouped(records as u64)));
    let filling = Arc::clone(&writer);
    tokio::task::spawn_blocking(move || {
        inputs.take(records).try_for_each(|input| filling.send(&input.record))?;
        filling.flush()
    })
    .await
    .context("filling the input topic panicked")??;

    screen.doing("measuring end to end");
    let cast = Cast::default();
    cast.enter("publisher", &scene.publisher("floor-publisher")).await?;
    cast.until_holds("publisher", BUCKETS_HELD, 64, Instant::now()).await?;
    let sent_at = SentAt::default();
    let tail = Tail::start(&scene.brokers, &[&scene.output], sent_at.clone()).await?;
    cast.enter("triage", &scene.triage("floor-triage")).await?;
    tail.reached(records as u64, WORK_WITHIN).await?;
    // From the first outcome to the last: starting a process and joining a group are not work.
    let rate = records as f64 / tail.seen().lasted().as_secs_f64();
    cast.look().await;
    figures.triage_resident = figures.triage_resident.max(cast.resident("triage"));
    figures.publisher_resident = figures.publisher_resident.max(cast.resident("publisher"));

    if alone > 0 {
        screen.doing(format!("sending {alone} records, each alone"));
        // Other ids than above.
        let inputs = Inputs::clean(SEED + 1, shared::clock::unix_millis());
        for (count, input) in inputs.take(alone).enumerate() {
            tokio::time::sleep(IDLE_PAUSE).await;
            sent_at.note(input.record.value.as_deref());
            writer.send(&input.record)?;
            tail.reached((records + count + 1) as u64, RECORD_WITHIN).await?;
        }
        figures.alone = Latency::of(tail.seen().latencies_ms());
        if let Some(alone) = figures.alone {
            screen.event(format!(
                "a record alone: median {}, p99 {}",
                span(alone.p50),
                span(alone.p99)
            ));
        }
    }
    cast.exit().await?;
    screen.doing("reading everything back");
    add(&mut figures.verdict, scene.audit().run().await?);
    Ok(rate)
}

/// The services' rows once more, by a client that only runs the statements; events a second.
async fn bare_client(stack: &Stack, scene: &Scene, screen: &Screen) -> anyhow::Result<f64> {
    screen.doing("measuring the same SQL by a bare client");
    let rows = bare::written(&scene.database.url).await?;
    let database = stack.empty_database("bare").await?;
    let count = rows.len();
    let mut client = Bare::connect(&database.url).await?;
    let began = Instant::now();
    client.write(rows).await?;
    let settled = client.read_and_settle().await?;
    let lasted = began.elapsed();
    ensure!(settled == count, "the bare client settled {settled} of {count} rows");
    if stack.choice().kind == StackKind::Env {
        stack.drop_database(&database).await?;
    }
    Ok(count as f64 / lasted.as_secs_f64())
}

fn add(sum: &mut Verdict, round: Verdict) {
    sum.records_in += round.records_in;
    sum.events_unique += round.events_unique;
    sum.duplicates_suppressed += round.duplicates_suppressed;
    sum.dead_lettered += round.dead_lettered;
    sum.published += round.published;
    sum.lost += round.lost;
    sum.decided_twice += round.decided_twice;
    sum.order_violations += round.order_violations;
    sum.publish_duplicates += round.publish_duplicates;
    sum.problems.extend(round.problems);
    for (outcome, count) in round.decisions {
        *sum.decisions.entry(outcome).or_default() += count;
    }
}
