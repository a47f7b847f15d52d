//! What a run is made of, drawn from its seed.

use std::sync::Arc;

use crate::chance::Chance;
use crate::intake::points::WANTED;
use crate::shrink::LeftOut;
use crate::trial::Logic;
use serde_json::{Value, json};
use shared::envelope::INPUT_RECEIVED;
use shared::headers::Headers;
use shared::id::EventId;
use triage_service::domain::case::{Accepted, Case};
use triage_service::domain::decision::Ruling;
use triage_service::domain::policy::{Policy, PolicyError};
use triage_service::domain::record::{Coordinates, Record};
use triage_service::intake::Limits;
use triage_service::intake::attempt::Triage;
use triage_service::intake::safeguards::{Safeguard, Safeguards};
use uuid::Uuid;

/// Topic of the outcomes; what is not sent there is a dead letter.
pub(crate) const OUTCOMES: &str = "outcomes";

/// How much goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Faults {
    /// Nothing but records that cannot be decided, and rebalances that go well.
    None,
    /// Processes, sessions of the group, offsets on their way, claims that are held for long.
    Group,
    /// Connections and the database as well.
    Database,
}

/// The frame of a run; the rest is drawn from its seed.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) faults: Faults,
    /// Which rules of the intake are switched off.
    pub(crate) off: Vec<Safeguard>,
    pub(crate) members: usize,
    pub(crate) partitions: usize,
    /// Most records of a partition.
    pub(crate) records: usize,
    /// Event ids in use; few make many duplicates.
    pub(crate) ids: usize,
    /// Keys in use; few make many promised pairs.
    pub(crate) keys: usize,
    /// One record in so many cannot be decided.
    pub(crate) bad: usize,
    /// Who decides, and about what.
    pub(crate) logic: Logic,
    /// What does not happen although the seed draws it.
    pub(crate) left_out: LeftOut,
}

impl Setup {
    pub(crate) fn new(faults: Faults) -> Self {
        Self {
            faults,
            off: Vec::new(),
            members: 2,
            partitions: 2,
            records: 8,
            ids: 8,
            keys: 2,
            bad: 4,
            logic: Logic::default(),
            left_out: LeftOut::default(),
        }
    }

    /// A frame that differs from seed to seed.
    pub(crate) fn drawn(faults: Faults, seed: u64) -> Self {
        let mut chance = Chance::new(!seed);
        Self {
            members: chance.pick(&[1, 2, 2, 3]),
            partitions: chance.pick(&[1, 2, 2, 3]),
            records: chance.pick(&[3, 8, 16]),
            ids: chance.pick(&[3, 6, 12, 30]),
            keys: chance.pick(&[1, 2, 3]),
            bad: chance.pick(&[2, 4, 10]),
            ..Self::new(faults)
        }
    }

    pub(crate) fn safeguards(&self) -> Safeguards {
        self.off
            .iter()
            .fold(Safeguards::default(), |all, &one| all.without(one))
    }

    /// Bounds so tight that each is met.
    pub(crate) fn limits(&self, chance: &mut Chance) -> Limits {
        Limits {
            workers: chance.pick(&[1, 2, 3]),
            batch_records: chance.pick(&[1, 2, 4, 100]),
            batch_bytes: chance.pick(&[1_500, 1 << 20]),
            buffer_records: chance.pick(&[2, 8, 100]),
            buffer_bytes: 1 << 20,
        }
    }

    /// The point at which a process is to end or a connection to be cut, so that each is met often enough.
    pub(crate) fn aim(&self, chance: &mut Chance) -> Option<&'static str> {
        let points: Vec<&str> = WANTED[..=self.faults as usize]
            .iter()
            .copied()
            .flatten()
            .copied()
            .collect();
        let is_point = |name: &&str| name.starts_with("crash: ") || name.starts_with("cut: ");
        let points: Vec<&str> = points.into_iter().filter(is_point).collect();
        (!points.is_empty()).then(|| chance.pick(&points))
    }

    /// The logs of the partitions. Offsets have gaps, as after compaction.
    pub(crate) fn logs(&self, chance: &mut Chance) -> Vec<Vec<Entry>> {
        let log = |partition: usize, chance: &mut Chance| {
            let (count, mut offset) = (1 + chance.below(self.records), 0);
            let entry = |_| {
                offset += if chance.odds(1, 6) { 3 } else { 1 };
                self.entry(chance, partition as i32, offset - 1)
            };
            (0..count).map(entry).collect()
        };
        let mut logs: Vec<Vec<Entry>> = (0..self.partitions).map(|partition| log(partition, chance)).collect();
        let mut records = 0..;
        for log in &mut logs {
            log.retain(|_| {
                records
                    .next()
                    .is_some_and(|record| !self.left_out.rows.contains(&record))
            });
        }
        logs
    }

    fn entry(&self, chance: &mut Chance, partition: i32, offset: i64) -> Entry {
        let (id, key) = (id_text(chance.below(self.ids)), chance.below(self.keys));
        let bad = [
            Kind::Undecodable,
            Kind::Tombstone,
            Kind::Refused,
            Kind::Refused,
            Kind::PolicyError,
            Kind::Unsupported,
        ];
        let kind = if chance.odds(1, self.bad) {
            chance.pick(&bad)
        } else {
            Kind::Good
        };
        let input = chance.below(self.logic.inputs.len());
        let (payload, is_decided) = match kind {
            Kind::PolicyError => (json!({"text": UNDECIDABLE}), false),
            _ => self.logic.inputs[input].clone(),
        };
        let kind = if kind == Kind::Good && !is_decided {
            Kind::PolicyError
        } else {
            kind
        };
        let mut value = envelope(&id, &format!("input-{key}"), payload);
        if kind == Kind::Unsupported {
            value["eventType"] = json!("unheard-of");
        }
        if kind == Kind::Undecodable {
            value["occurredAt"] = json!({});
        }
        let record = Record {
            at: Coordinates {
                topic: Arc::from("in"),
                partition,
                offset,
            },
            timestamp_ms: Some(1_700_000_000_000),
            key: Some(format!("input-{key}").into_bytes()),
            value: (kind != Kind::Tombstone).then(|| value.to_string().into_bytes()),
            headers: Headers::new(),
        };
        let is_named = !matches!(kind, Kind::Undecodable | Kind::Tombstone);
        let id = if is_named {
            EventId::from_text(&id).0
        } else {
            record.id()
        };
        Entry { record, id, key, kind }
    }

    pub(crate) fn triage(&self) -> Triage {
        Triage {
            policies: (self.logic.policies)().with_first(Box::new(Undecidable)),
            accepted: Accepted::default(),
            consumer: "triage".to_owned(),
            group: "triage".to_owned(),
            output_topic: OUTCOMES.to_owned(),
            dead_letter_topic: "in.dlt".to_owned(),
            instance: None,
            keep_input: false,
            is_traced: false,
            safeguards: self.safeguards(),
        }
    }
}

/// The value of a record: `payload` may name every member of the input, and must not.
pub(crate) fn envelope(id: &str, input_id: &str, payload: Value) -> Value {
    let mut input = json!({"channel": "web", "text": "", "receivedAtEpochMs": 1});
    if let Value::Object(members) = payload {
        members.into_iter().for_each(|(name, value)| input[name] = value);
    }
    input["inputId"] = json!(input_id);
    json!({
        "eventId": id,
        "eventType": INPUT_RECEIVED,
        "eventVersion": 1,
        "occurredAt": "2026-01-01T00:00:00Z",
        "payload": input,
    })
}

/// A record, and what the judge knows of it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) record: Record,
    /// The id that it has to be claimed under.
    pub(crate) id: EventId,
    pub(crate) key: usize,
    pub(crate) kind: Kind,
}

/// What is to become of a record whose id is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Good,
    /// No envelope, although its id could be seen.
    Undecodable,
    Tombstone,
    /// Postgres refuses to store its decision.
    Refused,
    /// A policy cannot judge it.
    PolicyError,
    /// Of a type that is not decided here.
    Unsupported,
}

const UNDECIDABLE: &str = "undecidable";

struct Undecidable;

impl Policy for Undecidable {
    fn name(&self) -> &str {
        UNDECIDABLE
    }

    fn judge(&self, case: &Case) -> Result<Option<Ruling>, PolicyError> {
        if case.input.text == UNDECIDABLE {
            Err(PolicyError(UNDECIDABLE.to_owned()))
        } else {
            Ok(None)
        }
    }
}

/// Ids whose order has nothing to do with that of their numbers; every other one is no UUID as it is written.
fn id_text(number: usize) -> String {
    if number.is_multiple_of(2) {
        format!("event-{number}")
    } else {
        Uuid::from_u128((number as u128 + 1).wrapping_mul(0x9E37_79B9_7F4A_4C15_8F4A_7C15_9E37_79B9)).to_string()
    }
}
