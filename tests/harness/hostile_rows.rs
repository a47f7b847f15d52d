//! Outbox rows as a writer without our library might leave them: good ones, strange ones, and ones that cannot be sent,
//! each with what has to become of it.

mod row;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};
use shared::hash::bucket_of;
use uuid::Uuid;

pub use row::Row;

/// Good rows have so many keys.
const KEYS: u64 = 40;
/// What a record may take beside its row's own bytes: below by so much, a row fits whatever is added.
const FRAMING: usize = 1_024;

/// What has to become of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is published, behind the good rows of its key that were written before.
    InOrder,
    /// It is published.
    Published,
    /// Its topic is not there: it is published when that is made.
    Waits,
    /// It is so close to its topic's limit that it is published or set aside.
    EitherWay,
    /// It is set aside, with a reason in which these words are.
    SetAside(&'static [&'static str]),
    /// The schema refuses it.
    Refused,
}

/// Where rows go.
#[derive(Debug, Clone)]
pub struct Topics {
    /// Takes records of a megabyte.
    pub large: String,
    /// Takes records up to the limit.
    pub small: String,
    /// Its limit in bytes.
    pub small_limit: usize,
    /// Are not there.
    pub missing: Vec<String>,
}

/// An endless stream; the same seed gives the same rows.
#[derive(Debug)]
pub struct HostileRows {
    random: StdRng,
    number: u64,
    topics: Topics,
    last: Option<Row>,
}

const ILLEGAL: [&str; 8] = [
    ".",
    "..",
    "a b",
    "orders/v1",
    "ümlaut",
    "a\nb",
    "\u{202e}orders",
    "orders.v1 ",
];
/// Texts for columns that a record's headers are made of.
const TEXTS: [&str; 9] = [
    "dead-letter",
    "",
    " ",
    "a\r\nb: c",
    "🎟️",
    "\u{7f}",
    "application/json; charset=\"x",
    "null",
    "00-zz-zz-01",
];
/// Times at both ends of what the schema takes.
const TIMES: [&str; 4] = [
    "1970-01-01 00:00:00+00",
    "1970-01-01 00:00:00.000001+00",
    "2199-12-31 23:59:59.999999+00",
    "2200-01-01 00:00:00+00",
];
const IMPOSSIBLE_TIMES: [&str; 5] = [
    "infinity",
    "-infinity",
    "4713-01-01 00:00:00+00 BC",
    "294276-12-31 23:59:59.999999+00",
    "2200-01-01 00:00:00.000001+00",
];

impl HostileRows {
    /// A stream to these topics.
    pub fn new(seed: u64, topics: Topics) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            number: 0,
            topics,
            last: None,
        }
    }

    fn row(&mut self) -> (Row, Fate) {
        let mut row = self.good();
        let fate = match self.random.random_range(0..100) {
            0..50 => Fate::InOrder,
            50..70 => self.strange(&mut row),
            70..75 => {
                row.topic = self.one_of(&self.topics.missing.clone());
                Fate::Waits
            }
            75..78 => self.near_the_limit(&mut row),
            78..92 => self.unsendable(&mut row),
            _ => self.refused(&mut row),
        };
        if fate == Fate::InOrder {
            self.last = Some(row.clone());
        }
        (row, fate)
    }

    /// A row as our library would write it; its payload begins with its number.
    fn good(&mut self) -> Row {
        let key = self.random.random_range(0..KEYS);
        let topic = if key.is_multiple_of(4) {
            &self.topics.small
        } else {
            &self.topics.large
        };
        let topic = topic.clone();
        let filling = self.random.random_range(0..400);
        Row {
            event_id: Some(self.event_id()),
            topic,
            key: Some(format!("key-{key}").into_bytes()),
            payload: Some(format!("{} {}", self.number, "x".repeat(filling)).into_bytes()),
            event_type: Some("test.happened".to_owned()),
            is_ordered: Some(self.random.random_bool(0.5)),
            ..Row::default()
        }
    }

    /// One that is odd and can be sent. Its key is its own where the order could be asked for.
    fn strange(&mut self, row: &mut Row) -> Fate {
        match self.random.random_range(0..15) {
            0 => row.key = None,
            1 => row.key = Some(Vec::new()),
            2 => row.key = Some(self.noise(60)),
            3 => {
                row.topic.clone_from(&self.topics.large);
                row.key = Some(self.noise(200_000));
            }
            4 => row.payload = None,
            5 => (row.key, row.payload) = (None, None),
            6 => row.payload = Some(Vec::new()),
            7 => row.event_type = Some(self.text()),
            8 => row.content_type = Some(self.text()),
            9 => (row.traceparent, row.tracestate) = (Some(self.text()), Some(self.text())),
            10 => row.headers = Some(self.headers()),
            11 => row.created_at = TIMES.choose(&mut self.random).copied(),
            12 => {
                // The side lane, of a key that is not blocked.
                row.lane = Some(1);
                row.key = Some(format!("side-{}", self.number).into_bytes());
                row.publish_attempts = Some(self.random.random_range(0..=1_000_000_000));
                row.next_attempt_at = Some(TIMES[0]);
            }
            13 => {
                row.inserted_xid =
                    Some(["0", "3", "4294967296", "18446744073709551615"][self.random.random_range(0..4)]);
                row.ended_below = Some(["0", "3", "4294967295"][self.random.random_range(0..3)]);
            }
            _ => {
                // The same event once more, byte for byte.
                if let Some(last) = &self.last {
                    row.clone_from(last);
                }
            }
        }
        Fate::Published
    }

    fn near_the_limit(&mut self, row: &mut Row) -> Fate {
        row.topic.clone_from(&self.topics.small);
        let limit = self.topics.small_limit;
        let size = self.random.random_range(limit - FRAMING..=limit);
        row.payload = Some(self.bytes(size));
        Fate::EitherWay
    }

    /// One that no broker would take, or that would stand under two owners.
    fn unsendable(&mut self, row: &mut Row) -> Fate {
        const LIMIT: &[&str] = &["limit of", "max.message.bytes", "raise that, or enqueue a smaller one"];
        let most = self.topics.small_limit;
        let too_long = "x".repeat(most + self.random.random_range(1..most));
        row.topic.clone_from(&self.topics.small);
        match self.random.random_range(0..13) {
            0 => {
                row.topic = (*ILLEGAL.choose(&mut self.random).expect("some")).to_owned();
                Fate::SetAside(&["topic", "enqueue the event again for another one"])
            }
            1 => {
                let own = bucket_of(row.key.as_deref(), row.event_id.unwrap_or_default());
                row.bucket = Some((i32::from(own) + self.random.random_range(1..64)) % 64);
                Fate::SetAside(&[
                    "bucket",
                    "does not match the key",
                    "enqueue through the library or outbox_enqueue()",
                ])
            }
            2 => {
                row.lane_hash = Some(self.random.random());
                Fate::SetAside(&["lane_hash", "enqueue through the library or outbox_enqueue()"])
            }
            3..6 => {
                row.headers = Some(self.broken_headers());
                Fate::SetAside(&["headers", "in the form that outbox_headers() shows"])
            }
            6 => {
                row.topic.clone_from(&self.topics.large);
                row.payload = Some(self.bytes(1_100_000));
                Fate::SetAside(LIMIT)
            }
            7 => {
                row.payload = Some(too_long.into_bytes());
                Fate::SetAside(LIMIT)
            }
            8 => {
                row.key = Some(too_long.into_bytes());
                Fate::SetAside(LIMIT)
            }
            9 => {
                row.event_type = Some(too_long);
                Fate::SetAside(LIMIT)
            }
            10 => {
                row.content_type = Some(too_long);
                Fate::SetAside(LIMIT)
            }
            11 => {
                row.traceparent = Some(too_long);
                Fate::SetAside(LIMIT)
            }
            _ => {
                row.tracestate = Some(too_long);
                Fate::SetAside(LIMIT)
            }
        }
    }

    fn refused(&mut self, row: &mut Row) -> Fate {
        match self.random.random_range(0..14) {
            0 => row.topic.clear(),
            1 => row.topic = "x".repeat(self.random.random_range(250..3_000)),
            2 => row.topic = "ü".repeat(125),
            3 => row.topic.push('\0'),
            4 => row.event_id = None,
            5 => row.event_type = None,
            6 => row.bucket = [-1, 64, 32_768].choose(&mut self.random).copied(),
            7 => row.lane = [-1, 2, 3].choose(&mut self.random).copied(),
            8 => row.status = ["FAILED", "SENT", ""].choose(&mut self.random).copied(),
            9 => row.created_at = IMPOSSIBLE_TIMES.choose(&mut self.random).copied(),
            10 => (row.lane, row.next_attempt_at) = (Some(1), IMPOSSIBLE_TIMES.choose(&mut self.random).copied()),
            11 => row.publish_attempts = [-1, i32::MAX, i32::MIN].choose(&mut self.random).copied(),
            12 => row.id = [-1, i64::MIN, i64::MAX].choose(&mut self.random).copied(), // no leaf has it
            _ => row.content_type = Some("a\0b".to_owned()),
        }
        Fate::Refused
    }

    /// Headers as they are stored, of every kind that can be.
    fn headers(&mut self) -> Vec<u8> {
        const NAMES: [&str; 6] = ["event-id", "outbox-id", "", "🎟️", "traceparent", "a"];
        let mut stored = Vec::new();
        for _ in 0..self.random.random_range(0..20) {
            let name = NAMES.choose(&mut self.random).expect("some");
            let value = self.random.random_bool(0.8).then(|| self.noise(40));
            stored.extend(header(name.as_bytes(), value.as_deref()));
        }
        stored
    }

    fn broken_headers(&mut self) -> Vec<u8> {
        let whole = header(b"name", Some(b"value"));
        match self.random.random_range(0..5) {
            0 => whole[..self.random.random_range(1..whole.len())].to_vec(),
            1 => header(b"a\0b", Some(b"value")),
            2 => header(&[0xff, 0xfe], Some(b"value")),
            3 => br#"{"event-id": "7"}"#.to_vec(), // JSON is not the form
            _ => [whole, vec![0xff; 7]].concat(),
        }
    }

    fn text(&mut self) -> String {
        (*TEXTS.choose(&mut self.random).expect("some")).to_owned()
    }

    fn one_of(&mut self, names: &[String]) -> String {
        names.choose(&mut self.random).cloned().unwrap_or_default()
    }

    fn event_id(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        self.random.fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// Up to so many bytes that mean nothing.
    fn noise(&mut self, most: usize) -> Vec<u8> {
        let count = self.random.random_range(1..=most);
        self.bytes(count)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.random.fill_bytes(&mut bytes);
        bytes
    }
}

impl Iterator for HostileRows {
    type Item = (Row, Fate);

    fn next(&mut self) -> Option<(Row, Fate)> {
        self.number += 1;
        Some(self.row())
    }
}

/// A header as it is stored.
fn header(name: &[u8], value: Option<&[u8]>) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a header is short").to_be_bytes();
    let name_length = u16::try_from(name.len()).expect("a name is short").to_be_bytes();
    [
        &name_length[..],
        name,
        &value.map_or([0xff; 4], length),
        value.unwrap_or_default(),
    ]
    .concat()
}
