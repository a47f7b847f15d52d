//! `claimfirst reconcile`: proves a system right or wrong from its own data, while it runs.
//!
//! | module | has |
//! |---|---|
//! | [`window`], [`topic`] | what is looked at |
//! | [`looks`] | the looks at Kafka and Postgres, in the order that makes them comparable |
//! | [`kafka`], [`postgres`] | the two sides; the latter alone has SQL |
//! | [`record`], [`copy`] | what is kept of a record, on its way into a temporary table |
//! | [`judge`] | what a difference means: pure, and the reason for the order of the looks |
//! | [`intake`], [`outbox`] | the checks: each join with its judgement |
//! | [`code`], [`finding`], [`report`] | what was found, for scripts and for people |
//!
//! Memory holds a few chunks of records and a few examples of each finding, however large topics and tables are.

pub mod code;
pub mod copy;
pub mod finding;
pub mod intake;
pub mod judge;
pub mod kafka;
pub mod looks;
pub mod outbox;
pub mod postgres;
pub mod progress;
pub mod record;
pub mod report;
pub mod topic;
pub mod window;

use std::time::Duration;

use crate::config::Settings;
use finding::Findings;
use intake::Intake;
use outbox::Outbox;
use progress::Progress;
use window::Window;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// What is looked at.
    pub window: Window,
    /// Rows that have been PENDING for longer are wrong.
    pub pending_age: Duration,
    /// Whether others may write to the output topics.
    pub admits_foreign: bool,
    /// How many of each finding are named.
    pub examples_max: usize,
}

/// What was found out.
#[derive(Debug)]
pub struct Answer {
    /// What was found.
    pub findings: Findings,
    /// What the intake has done.
    pub intake: Intake,
    /// What the publishers have done.
    pub outbox: Outbox,
    /// The topics that were read.
    pub topics: Vec<TopicRead>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// A topic that was read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TopicRead {
    /// Its name.
    pub name: String,
    /// Whether events come from it.
    pub is_input: bool,
    /// How many partitions were read.
    pub partitions: usize,
    /// Offsets that were read.
    pub records: u64,
    /// Offsets that its retention has removed.
    pub removed: u64,
}

/// Compares Kafka and Postgres. Both may go on working meanwhile.
///
/// # Errors
/// Only if it cannot be found out: what is wrong is in the answer.
pub async fn reconcile(settings: &Settings, question: &Question, progress: &Progress) -> anyhow::Result<Answer> {
    let mut looks = looks::look(settings, &question.window, progress).await?;
    looks.known.admits_foreign = question.admits_foreign;
    let mut findings = Findings::new(question.examples_max);
    progress.step("comparing records, claims and decisions");
    let intake = intake::judge(&mut looks, &question.window, &mut findings).await?;
    progress.step("comparing rows and records");
    let outbox = outbox::judge(&mut looks, &question.window, question.pending_age, &mut findings).await?;
    let inputs = looks.input.iter().map(|topic| (true, topic));
    let outputs = looks
        .outputs
        .iter()
        .filter(|topic| topic.is_read)
        .map(|topic| (false, topic));
    let topics = inputs.chain(outputs).map(|(is_input, topic)| TopicRead {
        name: topic.name.clone(),
        is_input,
        partitions: topic.spans.len(),
        records: topic.spans.values().map(kafka::Span::len).sum(),
        removed: topic.removed,
    });
    let topics = topics.collect();
    looks.store.close().await?;
    Ok(Answer {
        findings,
        intake,
        outbox,
        topics,
        notes: looks.notes,
    })
}
