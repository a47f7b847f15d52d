//! The judge: what must hold at the end of every scenario, read back from Postgres and Kafka.
//!
//! It knows the schema and the wire, and nothing of the services' code: a rule that both the service
//! and its judge take from one function would never be found broken.

mod facts;
mod order;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::stack::Database;
use crate::topics;
use facts::{Claim, Facts};

/// Problems that are told in full; the others are counted.
const PROBLEMS_TOLD: usize = 20;

/// One triage consumer whose work is judged.
#[derive(Debug, Clone)]
pub struct Triage {
    /// The consumer's name in the claims; by default the group's.
    pub consumer: String,
    /// The consumer group whose offsets are judged.
    pub group: String,
    /// Its input topics.
    pub inputs: Vec<String>,
    /// Where its outcomes go.
    pub output: String,
    /// Where its dead letters go.
    pub dead_letter: String,
}

/// What is judged, and what this scenario is allowed.
#[derive(Debug, Clone)]
pub struct Audit {
    brokers: String,
    database: Database,
    triage: Option<Triage>,
    allowed_failures: BTreeSet<Uuid>,
    has_faults: bool,
    is_shut_down: bool,
}

/// What was found. `problems` is empty if everything held.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Verdict {
    /// Records on the input topics.
    pub records_in: u64,
    /// Claims: events, and records that are none.
    pub events_unique: u64,
    /// Records that share another one's claim.
    pub duplicates_suppressed: u64,
    /// Claims that were set aside.
    pub dead_lettered: u64,
    /// Decisions by outcome.
    pub decisions: BTreeMap<String, u64>,
    /// Outbox rows that are on their topic.
    pub published: u64,
    /// Records without a claim, claims without their outcome, rows that are not on their topic.
    pub lost: u64,
    /// Decisions and outcomes beyond the first of an event.
    pub decided_twice: u64,
    /// Inversions of first occurrences among the pairs whose order is promised.
    pub order_violations: u64,
    /// Records on topics whose event id is there already.
    pub publish_duplicates: u64,
    /// What did not hold, for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

impl Verdict {
    /// Whether everything held.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Ends the test unless everything held.
    ///
    /// # Panics
    /// With all that is known, if something did not.
    pub fn assert_clean(&self) {
        assert!(self.is_clean(), "the invariants do not hold: {self:#?}");
    }

    fn problem(&mut self, text: String) {
        match self.problems.len() {
            count if count < PROBLEMS_TOLD => self.problems.push(text),
            PROBLEMS_TOLD => self.problems.push("and more".to_owned()),
            _ => {}
        }
    }

    fn lose(&mut self, text: String) {
        self.lost += 1;
        self.problem(text);
    }
}

impl Audit {
    /// Judges the outbox of a database.
    pub fn new(brokers: &str, database: &Database) -> Self {
        Self {
            brokers: brokers.to_owned(),
            database: database.clone(),
            triage: None,
            allowed_failures: BTreeSet::new(),
            has_faults: false,
            is_shut_down: true,
        }
    }

    /// Judges a triage consumer, too.
    #[must_use]
    pub fn triage(mut self, triage: Triage) -> Self {
        self.triage = Some(triage);
        self
    }

    /// These outbox events may end as FAILED.
    #[must_use]
    pub fn allow_failed(mut self, events: impl IntoIterator<Item = Uuid>) -> Self {
        self.allowed_failures.extend(events);
        self
    }

    /// Something was broken on purpose, so a record may be on its topic twice. Without a fault never.
    #[must_use]
    pub fn with_faults(mut self) -> Self {
        self.has_faults = true;
        self
    }

    /// The services still run, so leases are held and offsets may not be committed yet.
    #[must_use]
    pub fn still_running(mut self) -> Self {
        self.is_shut_down = false;
        self
    }

    /// Reads everything back and judges it.
    pub async fn run(&self) -> anyhow::Result<Verdict> {
        let facts = Facts::read(&self.brokers, &self.database, self.triage.as_ref()).await?;
        let mut verdict = Verdict::default();
        for (topic, dropped) in &facts.dropped {
            verdict.problem(format!(
                "{topic} has dropped its first {dropped} records, which the proof needs"
            ));
        }
        if let Some(triage) = &self.triage {
            judge_intake(triage, &facts, &mut verdict);
            judge_outcomes(triage, &facts, &mut verdict);
        }
        self.judge_rows(&facts, &mut verdict);
        self.judge_topics(&facts, &mut verdict);
        for violation in order::violations(&facts) {
            verdict.order_violations += 1;
            verdict.problem(violation);
        }
        if self.is_shut_down {
            self.judge_what_is_left(&facts, &mut verdict).await?;
        }
        Ok(verdict)
    }

    fn judge_rows(&self, facts: &Facts, verdict: &mut Verdict) {
        for row in &facts.rows {
            let found = facts
                .on_topic
                .get(&row.topic)
                .and_then(|topic| topic.firsts.get(&row.event_id));
            match (row.status.as_str(), found) {
                ("PUBLISHED", None) => verdict.lose(format!("{row} is PUBLISHED and not on its topic")),
                ("PUBLISHED", Some(first)) if first.key != row.key || first.value != row.payload => {
                    verdict.problem(format!("{row} is on its topic with another key or payload"));
                }
                ("PUBLISHED", Some(_)) => verdict.published += 1,
                ("FAILED", _) if self.allowed_failures.contains(&row.event_id) => {}
                (status, None) => verdict.lose(format!("{row} is {status} and not on its topic")),
                (status, Some(_)) => verdict.problem(format!("{row} is {status}, though it is on its topic")),
            }
        }
    }

    fn judge_topics(&self, facts: &Facts, verdict: &mut Verdict) {
        let known: HashSet<(&str, Uuid)> = facts
            .rows
            .iter()
            .map(|row| (row.topic.as_str(), row.event_id))
            .collect();
        for (name, topic) in &facts.on_topic {
            verdict.publish_duplicates += topic.repeats;
            for place in &topic.without_id {
                verdict.problem(format!("{name} {place} has no event-id"));
            }
            for (event_id, first) in &topic.firsts {
                if !known.contains(&(name.as_str(), *event_id)) {
                    let (partition, offset) = (first.partition, first.offset);
                    verdict.problem(format!(
                        "{name} {partition}/{offset} has event {event_id}, which no row has"
                    ));
                }
            }
        }
        if verdict.publish_duplicates > 0 && !self.has_faults {
            let count = verdict.publish_duplicates;
            verdict.problem(format!(
                "{count} records were published again, though nothing was broken"
            ));
        }
    }

    async fn judge_what_is_left(&self, facts: &Facts, verdict: &mut Verdict) -> anyhow::Result<()> {
        if facts.leases_held > 0 {
            verdict.problem(format!("{} leases are held by nobody who runs", facts.leases_held));
        }
        let Some(triage) = &self.triage else {
            return Ok(());
        };
        for input in &triage.inputs {
            for committed in topics::committed(&self.brokers, &triage.group, input).await? {
                if !committed.is_at_end() {
                    verdict.problem(format!("group {} stands at {committed:?} of {input}", triage.group));
                }
            }
        }
        Ok(())
    }
}

/// Every record has a claim: one at its own place, or one of its event id.
fn judge_intake(triage: &Triage, facts: &Facts, verdict: &mut Verdict) {
    verdict.records_in = facts.inputs.len() as u64;
    verdict.events_unique = facts.claims.len() as u64;
    let by_place: HashSet<_> = facts.claims.iter().map(Claim::place).collect();
    let by_id: HashSet<_> = facts.claims.iter().map(Claim::id_as_written).collect();
    for (topic, read) in &facts.inputs {
        if by_place.contains(&(topic.as_str(), read.partition, read.offset)) {
            continue;
        }
        match event_id_as_written(read.value.as_deref()) {
            Some(id) if by_id.contains(&id) => verdict.duplicates_suppressed += 1,
            id => verdict.lose(format!(
                "record {topic} {}/{} ({}) was not claimed by {}",
                read.partition,
                read.offset,
                id.as_deref().unwrap_or("without an id"),
                triage.consumer
            )),
        }
    }
}

/// A decided claim has one decision and one outcome, a claim that was set aside has its dead letter.
fn judge_outcomes(triage: &Triage, facts: &Facts, verdict: &mut Verdict) {
    let mut by_cause: HashMap<(&str, &str, i32, i64), u64> = HashMap::new();
    for row in &facts.rows {
        if let Some((topic, partition, offset)) = row.source() {
            *by_cause.entry((&row.topic, topic, partition, offset)).or_default() += 1;
        }
    }
    for claim in &facts.claims {
        let decisions = facts.decisions.get(&claim.event_id).map_or(&[][..], Vec::as_slice);
        let (topic, partition, offset) = claim.place();
        let rows_at = |to: &str| by_cause.get(&(to, topic, partition, offset)).copied().unwrap_or(0);
        let (outcomes, dead_letters) = (rows_at(&triage.output), rows_at(&triage.dead_letter));
        if claim.is_decided() {
            if decisions.is_empty() || outcomes == 0 {
                let count = decisions.len();
                verdict.lose(format!(
                    "{claim} is decided, with {count} decisions and {outcomes} outcomes"
                ));
            }
            let twice = (decisions.len() as u64).max(outcomes).saturating_sub(1);
            if twice > 0 {
                verdict.decided_twice += twice;
                verdict.problem(format!("{claim} was decided {} times", twice + 1));
            }
        } else {
            verdict.dead_lettered += 1;
            if dead_letters == 0 {
                verdict.lose(format!("{claim} was set aside without a dead letter"));
            }
            if dead_letters > 1 || !decisions.is_empty() || outcomes > 0 {
                verdict.problem(format!(
                    "{claim} was set aside, with {dead_letters} dead letters, {} decisions, {outcomes} outcomes",
                    decisions.len()
                ));
            }
        }
    }
    for outcome in facts.decisions.values().flatten() {
        *verdict.decisions.entry(outcome.clone()).or_default() += 1;
    }
    let claimed: HashSet<_> = facts.claims.iter().map(|claim| claim.event_id).collect();
    for event_id in facts.decisions.keys().filter(|event_id| !claimed.contains(event_id)) {
        verdict.problem(format!("the decision about {event_id} has no claim"));
    }
    // The topic says itself what an outcome was decided about.
    let mut about: HashMap<String, HashSet<Uuid>> = HashMap::new();
    for (event_id, first) in facts
        .on_topic
        .get(&triage.output)
        .into_iter()
        .flat_map(|topic| &topic.firsts)
    {
        if let Some(source) = source_event_id(first.value.as_deref()) {
            about.entry(source).or_default().insert(*event_id);
        }
    }
    for (source, outcomes) in about.iter().filter(|(_, outcomes)| outcomes.len() > 1) {
        verdict.decided_twice += outcomes.len() as u64 - 1;
        verdict.problem(format!(
            "{} has {} outcomes about {source}",
            triage.output,
            outcomes.len()
        ));
    }
}

/// The id in the record's text; a UUID in its usual form, as the claims have it.
fn event_id_as_written(value: Option<&[u8]>) -> Option<String> {
    let envelope: Value = serde_json::from_slice(value?).ok()?;
    let text = envelope.get("eventId")?.as_str()?;
    Some(Uuid::parse_str(text).map_or_else(|_| text.to_owned(), |id| id.to_string()))
}

fn source_event_id(value: Option<&[u8]>) -> Option<String> {
    let envelope: Value = serde_json::from_slice(value?).ok()?;
    Some(envelope.get("meta")?.get("sourceEventId")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests;
