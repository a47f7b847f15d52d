//! A realistic stream of support messages, with everything in it that goes wrong in practice.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, SecondsFormat};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::topics::Record;

/// How many of the last events a duplicate or a resend may repeat.
const REMEMBERED: usize = 500;
/// Half of the messages belong to these keys.
const HOT_KEYS: u32 = 5;

/// What a record is, and so what must become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A new event: decided.
    Fresh,
    /// A new event in a record without a key: decided.
    NullKey,
    /// A record that came before, byte for byte: suppressed.
    Duplicate,
    /// The id of an earlier event with another body: suppressed and counted.
    Resend,
    /// No envelope: dead-lettered.
    Malformed,
    /// No value: dead-lettered.
    Tombstone,
    /// An envelope whose payload cannot be decided: dead-lettered.
    Poison,
    /// An envelope of a type that is not ours: dead-lettered.
    UnsupportedType,
}

impl Kind {
    /// Whether the record must lead to a decision of its own.
    pub fn is_decided(self) -> bool {
        matches!(self, Self::Fresh | Self::NullKey)
    }

    /// Whether the record must be set aside with a dead letter.
    pub fn is_dead_lettered(self) -> bool {
        matches!(
            self,
            Self::Malformed | Self::Tombstone | Self::Poison | Self::UnsupportedType
        )
    }
}

/// One record of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// What it is.
    pub kind: Kind,
    /// What is written.
    pub record: Record,
}

/// What the ids of events are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ids {
    /// Mostly version 4 as TriageMate's, some version 7, a few that are no UUID.
    #[default]
    Mixed,
    /// Random UUIDs.
    V4,
    /// UUIDs in the order of their time, one a millisecond.
    V7,
}

/// An endless stream; the same seed and time give the same records.
#[derive(Debug)]
pub struct Inputs {
    random: StdRng,
    /// Weights of the kinds.
    mix: Vec<(Kind, u32)>,
    now_ms: i64,
    number: u64,
    ids: Ids,
    remembered: VecDeque<Message>,
}

/// A message that may come again.
#[derive(Debug, Clone)]
struct Message {
    event_id: String,
    input_id: String,
    text: &'static str,
    record: Record,
}

const TEXTS: [&str; 9] = [
    "Hello, how do I change the address on my invoice?",
    "The export is broken since this morning",
    "Login fails with an error after the update",
    "Maybe I misunderstood the manual, where is the menu?",
    "This is my first day, how do I get access?",
    "The printer is not working",
    "Спасибо, всё работает. 谢谢!",
    "A text with a NUL \0 in it, which JSON allows",
    "Please send me last month's report",
];
const SUBJECTS: [&str; 4] = ["Question", "URGENT: please call back", "asap", "Invoice"];
const CHANNELS: [&str; 3] = ["email", "chat", "web"];

/// The envelope as TriageMate's producers write it, with the nulls that they write.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    event_id: &'a str,
    event_type: &'a str,
    event_version: u32,
    occurred_at: Box<RawValue>,
    producer: Value,
    trace: Value,
    payload: Value,
}

impl Inputs {
    /// A stream with everything in it.
    pub fn new(seed: u64, now_ms: i64) -> Self {
        let mix = vec![
            (Kind::Fresh, 860),
            (Kind::NullKey, 20),
            (Kind::Duplicate, 70),
            (Kind::Resend, 15),
            (Kind::Malformed, 15),
            (Kind::Tombstone, 5),
            (Kind::Poison, 5),
            (Kind::UnsupportedType, 10),
        ];
        Self::with_mix(seed, now_ms, mix)
    }

    /// A stream of new events only.
    pub fn clean(seed: u64, now_ms: i64) -> Self {
        Self::with_mix(seed, now_ms, vec![(Kind::Fresh, 1)])
    }

    /// A stream with these kinds, by weight.
    pub fn with_mix(seed: u64, now_ms: i64, mix: Vec<(Kind, u32)>) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            mix,
            now_ms,
            number: 0,
            ids: Ids::default(),
            remembered: VecDeque::new(),
        }
    }

    /// The same stream with ids of one kind.
    #[must_use]
    pub fn with_ids(mut self, ids: Ids) -> Self {
        self.ids = ids;
        self
    }

    fn make(&mut self, kind: Kind) -> Record {
        match kind {
            Kind::Fresh => self.message(false),
            Kind::NullKey => self.message(true),
            Kind::Duplicate => self
                .earlier(|_| true)
                .map_or_else(|| self.message(false), |earlier| earlier.record),
            Kind::Resend => self.resend(),
            Kind::Malformed => self.malformed(),
            Kind::Tombstone => Record {
                value: None,
                ..Record::new(self.key(), "")
            },
            Kind::Poison => {
                // The type of `text` is wrong, so nothing can be decided about it.
                let payload = json!({"inputId": self.key(), "channel": "chat", "text": self.number});
                self.enveloped("triagemate.ingest.input-received", &payload)
            }
            Kind::UnsupportedType => self.enveloped("triagemate.billing.invoice-sent", &json!({"amount": 12})),
        }
    }

    fn message(&mut self, is_keyless: bool) -> Record {
        let (event_id, input_id) = (self.event_id(), self.key());
        let text = *TEXTS.choose(&mut self.random).expect("there are texts");
        let value = self.envelope(
            &event_id,
            "triagemate.ingest.input-received",
            &self.payload(&input_id, text),
        );
        let mut record = Record::new(input_id.as_str(), value);
        record.timestamp = Some(self.now_ms);
        if is_keyless {
            record.key = None;
        }
        if self.remembered.len() == REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back(Message {
            event_id,
            input_id,
            text,
            record: record.clone(),
        });
        record
    }

    /// Another body under an earlier id. Only of records with a key: without one the two may lie in two
    /// partitions, and which of them is first is nobody's promise.
    fn resend(&mut self) -> Record {
        let Some(earlier) = self.earlier(|message| message.record.key.is_some()) else {
            return self.message(false);
        };
        let text = *TEXTS
            .iter()
            .find(|text| **text != earlier.text)
            .expect("there are several texts");
        let payload = self.payload(&earlier.input_id, text);
        let value = self.envelope(&earlier.event_id, "triagemate.ingest.input-received", &payload);
        Record {
            value: Some(value),
            ..earlier.record
        }
    }

    fn malformed(&mut self) -> Record {
        let broken: [&[u8]; 4] = [b"{\"eventId\":", b"not JSON at all", b"\xff\xfe\x00", b"[]"];
        Record::new(self.key(), *broken.choose(&mut self.random).expect("there are some"))
    }

    fn enveloped(&mut self, event_type: &str, payload: &Value) -> Record {
        let (event_id, key) = (self.event_id(), self.key());
        Record::new(key, self.envelope(&event_id, event_type, payload))
    }

    fn earlier(&mut self, suits: impl Fn(&Message) -> bool) -> Option<Message> {
        let suitable: Vec<_> = self.remembered.iter().filter(|message| suits(message)).collect();
        suitable.choose(&mut self.random).map(|message| (*message).clone())
    }

    /// Hot keys for half of the messages, a long tail for the others.
    fn key(&mut self) -> String {
        if self.random.random_bool(0.5) {
            format!("customer-hot-{}", self.random.random_range(0..HOT_KEYS))
        } else {
            format!("customer-{}", self.random.random_range(0..100_000))
        }
    }

    fn event_id(&mut self) -> String {
        let mut bytes = [0; 16];
        self.random.fill_bytes(&mut bytes);
        let v7 = |millis: i64| {
            let millis = u64::try_from(millis).unwrap_or_default();
            let tail: &[u8; 10] = bytes.last_chunk().expect("16 bytes have a last chunk of 10");
            uuid::Builder::from_unix_timestamp_millis(millis, tail).into_uuid()
        };
        let v4 = || uuid::Builder::from_random_bytes(bytes).into_uuid();
        match self.ids {
            Ids::V4 => v4().to_string(),
            Ids::V7 => v7(self.now_ms.saturating_add_unsigned(self.number)).to_string(),
            Ids::Mixed => match self.random.random_range(0..10) {
                0 => format!("ticket-{}", Uuid::from_bytes(bytes).simple()),
                1..4 => v7(self.now_ms).to_string(),
                _ => v4().to_string(),
            },
        }
    }

    fn payload(&self, input_id: &str, text: &str) -> Value {
        let channel = CHANNELS[self.number as usize % CHANNELS.len()];
        json!({
            "inputId": input_id,
            "channel": channel,
            "subject": (channel == "email").then(|| SUBJECTS[self.number as usize % SUBJECTS.len()]),
            "text": text,
            "from": null,
            "receivedAtEpochMs": self.now_ms,
        })
    }

    /// The moment is written in both forms that are on the wire.
    fn envelope(&self, event_id: &str, event_type: &str, payload: &Value) -> Vec<u8> {
        let occurred_at = if self.number.is_multiple_of(2) {
            format!("{}.{:03}456789", self.now_ms / 1000, self.now_ms % 1000)
        } else {
            let moment = DateTime::from_timestamp_millis(self.now_ms).unwrap_or_default();
            format!("\"{}\"", moment.to_rfc3339_opts(SecondsFormat::Millis, true))
        };
        let envelope = Envelope {
            event_id,
            event_type,
            event_version: 1,
            occurred_at: RawValue::from_string(occurred_at).expect("a number and a text are JSON"),
            producer: json!({"service": "triagemate-contracts", "instance": null}),
            trace: json!({"requestId": format!("request-{}", self.number), "causationId": null}),
            payload: payload.clone(),
        };
        serde_json::to_vec(&envelope).expect("an envelope is JSON")
    }
}

impl Iterator for Inputs {
    type Item = Input;

    fn next(&mut self) -> Option<Input> {
        self.number += 1;
        self.now_ms += 1;
        let mut kind = self
            .mix
            .choose_weighted(&mut self.random, |(_, weight)| *weight)
            .expect("a mix has a weight")
            .0;
        // At the beginning there is nothing to repeat.
        let is_repeat = matches!(kind, Kind::Duplicate | Kind::Resend);
        if is_repeat && !self.remembered.iter().any(|message| message.record.key.is_some()) {
            kind = Kind::Fresh;
        }
        Some(Input {
            kind,
            record: self.make(kind),
        })
    }
}

/// How many records there are of each kind.
pub fn tally<'a>(inputs: impl IntoIterator<Item = &'a Input>) -> BTreeMap<Kind, u64> {
    let mut counts = BTreeMap::new();
    for input in inputs {
        *counts.entry(input.kind).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_stream_with_every_kind_in_it() {
        let stream = |seed| Inputs::new(seed, 1_763_678_412_123).take(3000).collect::<Vec<_>>();
        assert_eq!(stream(7), stream(7));
        assert_ne!(stream(7), stream(8));
        assert_eq!(tally(&stream(7)).len(), 8);
    }

    #[test]
    fn a_repeat_follows_its_original_under_the_same_key() {
        let mut seen = HashSet::new();
        for input in Inputs::new(1, 1_763_678_412_123).take(3000) {
            let id = |record: &Record| {
                let value: Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
                Some((record.key.clone(), value["eventId"].as_str()?.to_owned()))
            };
            match input.kind {
                Kind::Fresh | Kind::NullKey => assert!(seen.insert(id(&input.record).unwrap())),
                Kind::Duplicate | Kind::Resend => {
                    assert!(seen.contains(&id(&input.record).unwrap()))
                }
                Kind::Malformed | Kind::Tombstone => assert_eq!(id(&input.record), None),
                Kind::Poison | Kind::UnsupportedType => assert!(id(&input.record).is_some()),
            }
        }
    }
}
