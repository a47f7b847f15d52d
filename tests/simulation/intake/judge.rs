//! The judge: knows the records, what was committed when, and the offsets; nothing of how it came about.

use std::collections::{BTreeMap, BTreeSet};

use shared::id::EventId;
use triage_service::domain::record::Coordinates;

use crate::intake::setup::{Entry, Kind};

/// What is promised, and what became of it.
#[derive(Debug)]
pub(crate) struct Judge {
    records: BTreeMap<(i32, i64), Entry>,
    /// Records with an outcome or a dead letter.
    handled: BTreeSet<(i32, i64)>,
    /// Ids that were ever claimed by a commit.
    claimed: BTreeSet<EventId>,
    /// Ids that were decided, and whether that claim still stands.
    decided: BTreeMap<EventId, bool>,
    /// Records with a dead letter, and whether the claim under their own id still stands.
    dead: BTreeMap<(i32, i64), bool>,
    /// What was decided about each record, committed or not.
    said: BTreeMap<(i32, i64), [u8; 32]>,
    outcomes: Vec<FirstOutcome>,
    committed: BTreeMap<i32, i64>,
    pub(crate) broken: Option<String>,
}

/// A row of the outbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appended {
    pub(crate) id: u64,
    pub(crate) inserted_at: u64,
    pub(crate) is_outcome: bool,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// What a commit made true.
#[derive(Debug)]
pub(crate) struct Commit<'a> {
    pub(crate) transaction: usize,
    pub(crate) at: u64,
    pub(crate) claims: &'a [EventId],
    pub(crate) decisions: &'a [EventId],
    pub(crate) appended: &'a [Appended],
}

/// The outcome of an event that was not decided before.
#[derive(Debug, Clone, Copy)]
struct FirstOutcome {
    row: Appended,
    key: usize,
    transaction: usize,
    committed_at: u64,
}

impl Judge {
    pub(crate) fn new(logs: &[Vec<Entry>]) -> Self {
        let place = |entry: &Entry| ((entry.record.at.partition, entry.record.at.offset), entry.clone());
        Self {
            records: logs.iter().flatten().map(place).collect(),
            handled: BTreeSet::new(),
            claimed: BTreeSet::new(),
            decided: BTreeMap::new(),
            dead: BTreeMap::new(),
            said: BTreeMap::new(),
            outcomes: Vec::new(),
            committed: BTreeMap::new(),
            broken: None,
        }
    }

    pub(crate) fn is_refused(&self, at: &Coordinates) -> bool {
        self.records[&(at.partition, at.offset)].kind == Kind::Refused
    }

    /// Whether a commit holds what became of this very record.
    pub(crate) fn is_handled(&self, at: &Coordinates) -> bool {
        self.handled.contains(&(at.partition, at.offset))
    }

    fn fail(&mut self, broken: String) {
        self.broken.get_or_insert(broken);
    }

    /// A record is decided, for the first time or again after what went wrong: the same must come out.
    pub(crate) fn note_decision(&mut self, at: &Coordinates, digest: [u8; 32]) {
        let place = (at.partition, at.offset);
        if self.said.insert(place, digest).is_some_and(|before| before != digest) {
            self.fail(format!("IMPURE: {place:?} was decided in two ways"));
        }
    }

    pub(crate) fn note_commit(&mut self, commit: &Commit<'_>) {
        let Commit {
            transaction,
            at,
            claims,
            decisions,
            appended,
        } = *commit;
        self.claimed.extend(claims);
        if claims.len() != appended.len() {
            self.fail(format!(
                "ROWS: transaction {transaction} claims {claims:?} and appends {appended:?}"
            ));
        }
        let mut decisions = decisions.iter();
        for &row in appended {
            let place = (row.partition, row.offset);
            self.handled.insert(place);
            let Entry { id, key, kind, .. } = self.records[&place];
            if !claims.contains(&id) {
                self.fail(format!(
                    "UNCLAIMED: transaction {transaction} handled {place:?} without a claim"
                ));
            }
            if !row.is_outcome {
                let is_own = matches!(kind, Kind::Undecodable | Kind::Tombstone);
                if kind == Kind::Good {
                    self.fail(format!("GOOD SET ASIDE: {place:?}"));
                } else if self.dead.insert(place, is_own) == Some(true) {
                    self.fail(format!("TWICE: two dead letters of {place:?}"));
                }
                continue;
            }
            if kind != Kind::Good || decisions.next() != Some(&id) {
                self.fail(format!("WRONG: an outcome of {place:?}, which is {kind:?}"));
            }
            match self.decided.insert(id, true) {
                Some(true) => self.fail(format!("TWICE: {place:?} decides {:?} again", id.as_uuid())),
                Some(false) => {}
                None => self.put_in_order(FirstOutcome {
                    row,
                    key,
                    transaction,
                    committed_at: at,
                }),
            }
        }
    }

    /// Outcomes of one key follow the offsets: by their ids, and one committed before the next was inserted.
    fn put_in_order(&mut self, new: FirstOutcome) {
        let is_broken = |known: &&FirstOutcome| {
            let is_first = known.row.offset < new.row.offset;
            let (a, b) = if is_first { (**known, new) } else { (new, **known) };
            let is_late = a.transaction != b.transaction && a.committed_at > b.row.inserted_at;
            known.row.partition == new.row.partition && known.key == new.key && (a.row.id > b.row.id || is_late)
        };
        if let Some(known) = self.outcomes.iter().find(is_broken) {
            self.fail(format!("ORDER: {known:?} and {new:?}"));
        }
        self.outcomes.push(new);
    }

    /// The group's offset of a partition is now this one.
    pub(crate) fn note_offset(&mut self, partition: i32, offset: i64) {
        if let Some(before) = self
            .committed
            .insert(partition, offset)
            .filter(|before| *before > offset)
        {
            self.fail(format!("BACKWARDS: partition {partition} from {before} to {offset}"));
        }
        let passed = self.records.range((partition, i64::MIN)..(partition, offset));
        let lost = passed.into_iter().find(|(_, entry)| !self.claimed.contains(&entry.id));
        if let Some((place, entry)) = lost {
            self.fail(format!(
                "LOST: {place:?} {:?} is below offset {offset} and nobody claimed it",
                entry.kind
            ));
        }
    }

    /// Retention took a claim: what comes again is decided again.
    pub(crate) fn forget(&mut self, id: EventId) {
        if let Some(is_standing) = self.decided.get_mut(&id) {
            *is_standing = false;
        }
        for (place, is_standing) in &mut self.dead {
            if self.records[place].id == id {
                *is_standing = false;
            }
        }
    }

    /// Every record has been passed: each good one must be decided, each other one must lie in the open.
    pub(crate) fn verdict(&self) -> Option<String> {
        let is_missing = |(place, entry): &(&(i32, i64), &Entry)| {
            let is_decided = self.decided.contains_key(&entry.id);
            !is_decided && (entry.kind == Kind::Good || !self.dead.contains_key(place))
        };
        let (place, entry) = self.records.iter().find(is_missing)?;
        Some(format!(
            "SWALLOWED: {place:?} {:?} has no outcome and no dead letter",
            entry.kind
        ))
    }
}
