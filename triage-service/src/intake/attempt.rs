//! One transaction: claim, decide what was claimed, compare the rest, append, commit.
//!
//! The sequence is the same on Postgres and on the store of the simulation: only [`Inbox`] differs.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use shared::id::EventId;
use shared::telemetry;
use tracing::{Span, warn};

use crate::domain::case::{Accepted, Reading};
use crate::domain::dead_letter::{self, Reason, SetAside, dead_letter};
use crate::domain::decision::Outcome;
use crate::domain::outcome::{self, DecisionRow, OutboxEvent, outcome};
use crate::domain::policy::PolicySet;
use crate::domain::record::{Coordinates, Record};

use super::Verdict;
use super::batch::{Batch, Claiming, Piece};
use super::inbox::{Claim, Inbox, InboxError, InboxTransaction, StandingClaim};
use super::safeguards::{Safeguard, Safeguards};

/// Everything a transaction needs to know beside its records.
pub struct Triage {
    /// Who decides.
    pub policies: PolicySet,
    /// What is decided.
    pub accepted: Accepted,
    /// Name under which events are claimed; part of every id derived from them.
    pub consumer: String,
    /// The consumer group, for dead letters.
    pub group: String,
    /// Topic of outcomes.
    pub output_topic: String,
    /// Topic of dead letters.
    pub dead_letter_topic: String,
    /// Which instance decides.
    pub instance: Option<String>,
    /// Whether a record's value is kept with its decision, or only its digest.
    pub keep_input: bool,
    /// Whether traces are sent: each decision is then a span, a child of its record's.
    pub is_traced: bool,
    /// Which safeguards hold: all, outside of tests.
    pub safeguards: Safeguards,
}

/// What a committed transaction changed. Counted after the commit, never before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Decisions by outcome.
    pub decisions: Vec<Outcome>,
    /// Dead letters by reason.
    pub dead_letters: Vec<DeadLettered>,
    /// Records that were handled before.
    pub duplicates: usize,
    /// Duplicates with another body.
    pub mismatches: Vec<Mismatch>,
}

/// A record that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLettered {
    /// The claimed id.
    pub event_id: EventId,
    /// The record.
    pub source: Coordinates,
    /// Why.
    pub set_aside: SetAside,
}

/// A duplicate whose body is not the one that was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The claimed id.
    pub event_id: EventId,
    /// The record in hand.
    pub record: Coordinates,
    /// The record that was decided.
    pub decided: Coordinates,
}

/// Attempts a piece of a batch in one transaction.
pub async fn attempt<I: Inbox>(
    inbox: &I,
    triage: &Triage,
    batch: &Batch,
    piece: &Piece,
    now: DateTime<Utc>,
) -> (Verdict, Tally) {
    let work = Work::new(triage, batch, piece, now);
    match work.transact(inbox).await {
        Ok(done) => done,
        Err(error) => (work.verdict_of(error), Tally::default()),
    }
}

/// A piece, prepared for its transaction.
struct Work<'a> {
    triage: &'a Triage,
    records: &'a [Record],
    readings: &'a [Reading],
    piece: &'a Piece,
    now: DateTime<Utc>,
    /// The records that claim, in (partition, offset) order: the first of each id.
    first: Vec<u32>,
    /// The records whose id stands earlier in the same piece.
    later: Vec<u32>,
}

/// What a transaction writes for what it claimed.
#[derive(Default)]
struct Written {
    decisions: Vec<DecisionRow>,
    events: Vec<OutboxEvent>,
    /// Claims that a policy set aside after they were made.
    set_aside: Vec<(EventId, Reason)>,
    tally: Tally,
}

impl<'a> Work<'a> {
    fn new(triage: &'a Triage, batch: &'a Batch, piece: &'a Piece, now: DateTime<Utc>) -> Self {
        let readings = batch.readings(&triage.accepted);
        let mut seen = HashSet::with_capacity(piece.records.len());
        let mut is_first = |index: &u32| seen.insert(readings[*index as usize].event_id);
        let (first, mut later): (Vec<u32>, Vec<u32>) = piece.records.iter().copied().partition(&mut is_first);
        let mut work = Self {
            triage,
            records: batch.records(),
            readings,
            piece,
            now,
            first,
            later: Vec::new(),
        };
        if triage.safeguards.hold(Safeguard::DedupePerTransaction) {
            work.later = later;
        } else {
            later = batch.later_duplicates(&triage.accepted).into_iter().collect();
            work.first.retain(|index| !later.contains(index));
        }
        work
    }

    async fn transact<I: Inbox>(&self, inbox: &I) -> Result<(Verdict, Tally), InboxError> {
        let mut transaction = inbox.begin().await?;
        let ours = self.claim(&mut transaction).await?;
        let mut written = self.decide(&ours);
        if !written.set_aside.is_empty() {
            transaction.set_aside(&written.set_aside).await?;
        }
        let contested: Vec<u32> = self.contested(&ours);
        if !contested.is_empty() {
            let mut ids: Vec<EventId> = contested.iter().map(|&index| self.reading(index).event_id).collect();
            ids.sort_unstable();
            ids.dedup();
            let standing = transaction.conflicts(&ids).await?;
            if let Err(verdict) = self.compare(&contested, &standing, &mut written.tally) {
                transaction.roll_back().await;
                return Ok((verdict, Tally::default()));
            }
        }
        if !written.events.is_empty() {
            transaction.append(&written.decisions, &written.events).await?;
        }
        transaction.commit().await?;
        Ok((Verdict::Committed, written.tally))
    }

    /// Claims before anything else, in the order of the ids: owners that overlap wait for each other in
    /// one direction only.
    async fn claim<T: InboxTransaction>(&self, transaction: &mut T) -> Result<HashSet<EventId>, InboxError> {
        let mut claims: Vec<Claim> = self.first.iter().map(|&index| self.claim_of(index)).collect();
        if self.triage.safeguards.hold(Safeguard::SortedClaims) {
            claims.sort_unstable_by_key(|claim| claim.event_id);
        }
        match self.piece.claiming {
            Claiming::Insert if claims.is_empty() => Ok(HashSet::new()),
            Claiming::Insert => Ok(transaction.claim(&claims).await?.into_iter().collect()),
            Claiming::TakeOver => {
                let mut ours = HashSet::new();
                for claim in &claims {
                    if transaction.take_over(claim).await? {
                        ours.insert(claim.event_id);
                    }
                }
                Ok(ours)
            }
        }
    }

    fn claim_of(&self, index: u32) -> Claim {
        let reading = self.reading(index);
        Claim {
            event_id: reading.event_id,
            event_id_text: reading.event_id_text.clone(),
            source: self.records[index as usize].at.clone(),
            digest: reading.claim_digest(),
            set_aside: match (&self.piece.data_error, &reading.case) {
                (Some(_), _) => Some(Reason::DataError),
                (None, Err(set_aside)) => Some(set_aside.reason),
                (None, Ok(_)) => None,
            },
        }
    }

    /// Decides what was claimed, in (partition, offset) order. Pure.
    fn decide(&self, ours: &HashSet<EventId>) -> Written {
        let mut written = Written::default();
        for &index in &self.first {
            let (record, reading) = (&self.records[index as usize], self.reading(index));
            if !ours.contains(&reading.event_id) {
                continue;
            }
            let _decide = self.span(record, reading).entered();
            let case = match (&self.piece.data_error, &reading.case) {
                (Some(code), _) => Err(data_error(code)),
                (None, case) => case.as_ref().map_err(Clone::clone),
            };
            let decided = case.and_then(|case| {
                let decision = self.triage.policies.decide(case);
                decision.map(|decision| (case, decision)).inspect_err(|set_aside| {
                    written.set_aside.push((reading.event_id, set_aside.reason));
                })
            });
            match decided {
                Ok((case, decision)) => {
                    written.tally.decisions.push(decision.ruling.outcome);
                    let (row, event) = outcome(record, reading, case, decision, self.outcome_context());
                    written.decisions.push(row);
                    written.events.push(self.traced(event));
                }
                Err(set_aside) => {
                    let event = dead_letter(record, &set_aside, self.dead_letter_context());
                    written.events.push(self.traced(event));
                    let (event_id, source) = (reading.event_id, record.at.clone());
                    written.tally.dead_letters.push(DeadLettered {
                        event_id,
                        source,
                        set_aside,
                    });
                }
            }
        }
        written
    }

    /// Records whose id is claimed by another record or another time. A duplicate is compared with the
    /// claim as it stands, also where the claim was made a moment ago by the record before it.
    fn contested(&self, ours: &HashSet<EventId>) -> Vec<u32> {
        let lost = self
            .first
            .iter()
            .filter(|&&index| !ours.contains(&self.reading(index).event_id));
        let mut contested: Vec<u32> = lost.chain(&self.later).copied().collect();
        contested.sort_unstable();
        contested
    }

    fn compare(&self, contested: &[u32], standing: &[StandingClaim], tally: &mut Tally) -> Result<(), Verdict> {
        let standing: HashMap<EventId, &StandingClaim> = standing.iter().map(|claim| (claim.event_id, claim)).collect();
        let mut take_over = Vec::new();
        for &index in contested {
            let (record, reading) = (&self.records[index as usize], self.reading(index));
            let Some(claim) = standing.get(&reading.event_id) else {
                return Err(Verdict::ClaimGone);
            };
            let is_same_record = claim.source == record.at;
            if claim.is_set_aside && !is_same_record && self.triage.safeguards.hold(Safeguard::WayBack) {
                take_over.push(index);
                continue;
            }
            tally.duplicates += 1;
            if !is_same_record && claim.digest != reading.claim_digest() {
                let (event_id, record, decided) = (reading.event_id, record.at.clone(), claim.source.clone());
                tally.mismatches.push(Mismatch {
                    event_id,
                    record,
                    decided,
                });
            }
        }
        if take_over.is_empty() {
            Ok(())
        } else {
            Err(Verdict::TakeOver(take_over))
        }
    }

    fn verdict_of(&self, error: InboxError) -> Verdict {
        let first = self
            .piece
            .records
            .first()
            .map(|&index| &self.records[index as usize].at);
        let from = first.map_or_else(|| "nothing".to_owned(), Coordinates::to_string);
        let count = self.piece.records.len();
        let chain = shared::cause::chain(&error);
        match error {
            InboxError::Data { code, .. } if count > 1 => {
                tracing::info!(code, "data error among {count} records from {from}: halving them");
                Verdict::DataError(code)
            }
            InboxError::Data { code, .. } => {
                warn!(code, "data error of record {from}: {chain}");
                Verdict::DataError(code)
            }
            InboxError::LockTimeout(_) => {
                warn!("claims of {count} records from {from} are held by another transaction: trying again");
                Verdict::LockTimeout
            }
            InboxError::Unavailable(_) => {
                warn!("{count} records from {from} not stored, trying again: {chain}");
                Verdict::Unavailable(chain)
            }
            InboxError::Unclear(_) => {
                warn!("commit of {count} records from {from} is unclear, trying again: {chain}");
                Verdict::Unclear(chain)
            }
        }
    }

    /// The span of a decision, tied to the trace that its record came with.
    fn span(&self, record: &Record, reading: &Reading) -> Span {
        if !self.triage.is_traced {
            return Span::none();
        }
        let span = tracing::info_span!("decide", event.id = %reading.event_id.as_uuid(), record = %record.at);
        if let (Some(traceparent), tracestate) = dead_letter::trace_context(&record.headers) {
            telemetry::set_parent(&span, &traceparent, tracestate.as_deref());
        }
        span
    }

    /// The event in the trace of the current span; without one, in that of its record.
    fn traced(&self, mut event: OutboxEvent) -> OutboxEvent {
        if let Some(context) = self.triage.is_traced.then(telemetry::current).flatten() {
            event.traceparent = Some(context.traceparent);
            event.tracestate = context.tracestate;
        }
        event
    }

    fn reading(&self, index: u32) -> &'a Reading {
        &self.readings[index as usize]
    }

    fn outcome_context(&self) -> outcome::Context<'a> {
        let triage = self.triage;
        outcome::Context {
            topic: &triage.output_topic,
            consumer: &triage.consumer,
            instance: triage.instance.as_deref(),
            now: self.now,
            keep_input: triage.keep_input,
        }
    }

    fn dead_letter_context(&self) -> dead_letter::Context<'a> {
        let triage = self.triage;
        dead_letter::Context {
            topic: &triage.dead_letter_topic,
            group: &triage.group,
            consumer: &triage.consumer,
            now: self.now,
        }
    }
}

fn data_error(code: &str) -> SetAside {
    SetAside {
        reason: Reason::DataError,
        message: format!("postgres refuses its data ({code})"),
    }
}
