//! Records that nobody should write and somebody does: good ones with bytes, members, keys, headers and times changed.
//!
//! No two records share an event id unless a change made them: each begins as an event of its own.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::topics::Record;

/// Levels of nesting, beyond what a parser without a limit has stack for.
const DEPTH: usize = 100_000;
/// Of large values: one in so many records.
const LARGE_EVERY: u64 = 20_000;

/// An endless stream; the same seed gives the same records.
#[derive(Debug)]
pub struct Hostile {
    random: StdRng,
    number: u64,
    /// Of the largest values.
    large_bytes: usize,
}

/// JSON that is not what a member should be, written as it stands: some of it is no JSON, or no number that fits.
const TEXTS: [&str; 34] = [
    "null",
    "true",
    "{}",
    "[]",
    "\"\"",
    "\" \"",
    "0",
    "-0",
    "-1",
    "1.5",
    "1e400",
    "-1e400",
    "1e-400",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "99999999999999999999999999999999999999",
    "0.1e1000000000",
    "NaN",
    "Infinity",
    "01",
    "\"\\u0000\"",
    "\"a\\u0000b\"",
    "\"\\ud800\"",
    "\"\\udc00\\ud800\"",
    "\"\\x\"",
    "\"0001-01-01T00:00:00Z\"",
    "\"9999-12-31T23:59:59.999999999Z\"",
    "\"-292277022657-01-27T08:29:52Z\"",
    "\"+300000-01-01T00:00:00Z\"",
    "\"2026-02-30T25:61:61Z\"",
    "1e18",
    "-1e18",
];

/// Paths of an envelope's members.
const MEMBERS: [&[&str]; 14] = [
    &["eventId"],
    &["eventType"],
    &["eventVersion"],
    &["occurredAt"],
    &["producer"],
    &["producer", "service"],
    &["trace"],
    &["trace", "requestId"],
    &["payload"],
    &["payload", "inputId"],
    &["payload", "channel"],
    &["payload", "subject"],
    &["payload", "text"],
    &["payload", "receivedAtEpochMs"],
];

impl Hostile {
    /// A stream with values of up to so many bytes.
    pub fn new(seed: u64, large_bytes: usize) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            number: 0,
            large_bytes,
        }
    }

    fn record(&mut self) -> Record {
        let mut envelope = self.envelope();
        let mut record = Record::new(format!("customer-{}", self.random.random_range(0..1_000)), "");
        if self.number.is_multiple_of(LARGE_EVERY) {
            record.value = Some(self.large(&mut envelope));
            return record;
        }
        record.value = match self.random.random_range(0..100) {
            0..15 => Some(written(&envelope)),
            15..45 => Some(self.mutated(written(&envelope))),
            45..75 => Some(self.member_replaced(&mut envelope)),
            75..80 => Some(self.member_twice(&envelope)),
            80..84 => Some(self.id_changed(&mut envelope)),
            84..88 => Some(self.nested(&mut envelope)),
            88..92 => Some(self.noise(300)),
            92..95 => Some(self.encoded_otherwise(&envelope)),
            95..97 => None,
            97..98 => Some(Vec::new()),
            _ => Some(self.removed(&mut envelope)),
        };
        self.change_key(&mut record);
        self.change_headers(&mut record);
        self.change_time(&mut record);
        record
    }

    /// A good event.
    fn envelope(&mut self) -> Value {
        let mut bytes = [0; 16];
        self.random.fill_bytes(&mut bytes);
        json!({
            "eventId": uuid::Builder::from_random_bytes(bytes).into_uuid().to_string(),
            "eventType": "triagemate.ingest.input-received",
            "eventVersion": 1,
            "occurredAt": "2026-01-15T08:30:00.123Z",
            "producer": {"service": "somebody", "instance": null},
            "trace": {"requestId": format!("request-{}", self.number), "causationId": null},
            "payload": {
                "inputId": format!("customer-{}", self.number % 1_000),
                "channel": "email",
                "subject": "urgent",
                "text": "the export is broken",
                "from": null,
                "receivedAtEpochMs": 1_768_466_000_123_i64,
            },
        })
    }

    /// Bytes flipped, removed, put in and repeated.
    fn mutated(&mut self, mut value: Vec<u8>) -> Vec<u8> {
        for _ in 0..self.random.random_range(1..=8) {
            if value.is_empty() {
                break;
            }
            let at = self.random.random_range(0..value.len());
            let end = value.len().min(at + self.random.random_range(1..=40));
            match self.random.random_range(0..6) {
                0 => value[at] ^= 1 << self.random.random_range(0..8),
                1 => {
                    value[at] = *[0, b'"', b'\\', b'{', 0xff, 0xc0, 0xed, b'9']
                        .choose(&mut self.random)
                        .expect("some")
                }
                2 => drop(value.drain(at..end)),
                3 => value.truncate(at),
                4 => {
                    let repeated = value[at..end].to_vec();
                    value.splice(at..at, repeated);
                }
                _ => {
                    let inserted = self.noise(12);
                    value.splice(at..at, inserted);
                }
            }
        }
        value
    }

    /// One member of the envelope becomes something else.
    fn member_replaced(&mut self, envelope: &mut Value) -> Vec<u8> {
        let text = *TEXTS.choose(&mut self.random).expect("there are some");
        self.with_text(envelope, text)
    }

    fn with_text(&mut self, envelope: &mut Value, text: &str) -> Vec<u8> {
        const MARK: &str = "\"@@@\"";
        let path = MEMBERS.choose(&mut self.random).expect("there are some");
        if let Some(member) = envelope.pointer_mut(&format!("/{}", path.join("/"))) {
            *member = json!("@@@");
        }
        String::from_utf8_lossy(&written(envelope))
            .replace(MARK, text)
            .into_bytes()
    }

    /// The same member twice, with two values.
    fn member_twice(&mut self, envelope: &Value) -> Vec<u8> {
        let members = envelope
            .as_object()
            .map(Map::keys)
            .into_iter()
            .flatten()
            .collect::<Vec<_>>();
        let name = members.choose(&mut self.random).expect("an envelope has members");
        let text = TEXTS.choose(&mut self.random).expect("there are some");
        let mut value = written(envelope);
        value.pop();
        value.extend_from_slice(format!(",\"{name}\":{text}}}").as_bytes());
        value
    }

    /// Ids of every length and form; each ends with the record's number.
    fn id_changed(&mut self, envelope: &mut Value) -> Vec<u8> {
        let number = self.number;
        let of_time = |millis| {
            uuid::Builder::from_unix_timestamp_millis(millis, &tail(number))
                .into_uuid()
                .to_string()
        };
        let id = match self.random.random_range(0..9) {
            0 => format!("{}{number}", "x".repeat(self.random.random_range(0..400))),
            1 => format!("\0{number}"),
            2 => format!("ид-识别-🎟️-\u{202e}{number}"),
            3 => of_time(0),
            4 => of_time((1 << 48) - 1),
            5 => Uuid::from_u128(number.into()).to_string(), // of no version
            6 => Uuid::from_u128(u128::MAX - u128::from(number))
                .braced()
                .to_string()
                .to_uppercase(),
            7 => Uuid::from_u128((7 << 76) | u128::from(number)).urn().to_string(), // of no variant
            _ => format!(" {} ", Uuid::from_u128(number.into()).simple()),
        };
        envelope["eventId"] = json!(id);
        written(envelope)
    }

    /// Deeper than a parser should follow, open or closed.
    fn nested(&mut self, envelope: &mut Value) -> Vec<u8> {
        let depth = self
            .random
            .random_range(1..=if self.number.is_multiple_of(97) { DEPTH } else { 500 });
        let (open, close) = *[("[", "]"), ("{\"a\":", "}"), ("[", "")]
            .choose(&mut self.random)
            .expect("some");
        let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        self.with_text(envelope, &text)
    }

    /// JSON of other encodings, or with something around it.
    fn encoded_otherwise(&mut self, envelope: &Value) -> Vec<u8> {
        let value = written(envelope);
        match self.random.random_range(0..4) {
            0 => [b"\xef\xbb\xbf".as_slice(), &value].concat(),
            1 => String::from_utf8_lossy(&value)
                .encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect(),
            2 => [&value[..], b"\0"].concat(),
            _ => [&value[..], b"\n", &value].concat(),
        }
    }

    fn removed(&mut self, envelope: &mut Value) -> Vec<u8> {
        let path = MEMBERS.choose(&mut self.random).expect("there are some");
        let (name, parents) = path.split_last().expect("a path has a name");
        let parent = parents.iter().fold(String::new(), |all, one| format!("{all}/{one}"));
        if let Some(parent) = envelope.pointer_mut(&parent).and_then(Value::as_object_mut) {
            parent.remove(*name);
        }
        written(envelope)
    }

    /// As large as the topic takes: noise, or an event that can be decided.
    fn large(&mut self, envelope: &mut Value) -> Vec<u8> {
        let room = self.large_bytes;
        match self.number / LARGE_EVERY % 3 {
            0 => self.noise(room),
            1 => {
                envelope["payload"]["text"] = json!("e".repeat(room - written(envelope).len()));
                written(envelope)
            }
            _ => {
                envelope["producer"]["instance"] = json!("\0".repeat((room - written(envelope).len()) / 6));
                written(envelope)
            }
        }
    }

    fn change_key(&mut self, record: &mut Record) {
        match self.random.random_range(0..100) {
            0..3 => record.key = None,
            3..5 => record.key = Some(Vec::new()),
            5..8 => record.key = Some(self.noise(20)),
            8 if self.number.is_multiple_of(7) => record.key = Some(self.noise(60_000)),
            9 => record.key = Some(vec![0; 300]),
            _ => {}
        }
    }

    fn change_headers(&mut self, record: &mut Record) {
        let many = match self.random.random_range(0..100) {
            0..5 => 1,
            5..7 => 5,
            7 => 200,
            _ => return,
        };
        const NAMES: [&str; 7] = ["traceparent", "tracestate", "event-id", "dlt-reason", "", "a\0b", "🎟️"];
        for _ in 0..many {
            let name = (*NAMES.choose(&mut self.random).expect("some")).to_owned();
            let value = self.random.random_bool(0.8).then(|| self.noise(60));
            record.headers.push((name, value));
        }
    }

    fn change_time(&mut self, record: &mut Record) {
        record.timestamp = match self.random.random_range(0..100) {
            0 => Some(1),
            1 => Some(i64::MAX),
            2 => Some(253_402_300_800_000), // the year 10000
            3 => Some(i64::from(u32::MAX)),
            _ => None,
        };
    }

    /// Up to so many bytes that mean nothing.
    fn noise(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.random.random_range(most / 2..=most)];
        self.random.fill_bytes(&mut bytes);
        bytes
    }
}

fn written(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON can be written")
}

fn tail(number: u64) -> [u8; 10] {
    let mut tail = [0; 10];
    tail[2..].copy_from_slice(&number.to_be_bytes());
    tail
}

impl Iterator for Hostile {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        self.number += 1;
        Some(self.record())
    }
}
