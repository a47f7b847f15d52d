//! The relay between a store and a broker that do what the test says.

mod lease;
mod order;
mod pace;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shared::hash;
use uuid::Uuid;

use super::{Command, Relay};
use crate::config::Config;
use crate::domain::event::OutboxEvent;
use crate::domain::rules::Rules;
use crate::domain::topic::{Lane, TopicFacts, TopicFault};
use crate::ports::{
    ChangeAnswer, ChangeKind, ControlAnswer, Held, LookAnswer, LookRequest, ReadAnswer, SendError, SideRow,
};

const TOPIC: &str = "topic";
const FACTS: TopicFacts = TopicFacts {
    partitions: 1,
    record_bytes_max: Some(1 << 20),
};
/// Rows of a bucket from which on what waits for a topic is in the way.
const NEARLY_A_RING: usize = 1_600;
const REFUSED: fn() -> Result<(), SendError> = || Err(SendError::Row("refused".to_owned()));

/// A row in a producer's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sent {
    id: i64,
    lane: Lane,
    generation: u64,
    token: usize,
}

/// One relay that holds every bucket, with a store that does what it is asked.
struct Bench {
    relay: Relay,
    now: Duration,
    topic: Result<TopicFacts, TopicFault>,
    /// Renewals are not answered.
    is_mute: bool,
    fresh: Vec<OutboxEvent>,
    known: BTreeMap<i64, OutboxEvent>,
    side: BTreeSet<i64>,
    failed: Vec<i64>,
    /// Rows of each statement that retries, parks or fails.
    changes: Vec<usize>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            relay: Relay::new(Config::default().relay(), Rules::default(), 1),
            now: Duration::ZERO,
            topic: Ok(FACTS),
            is_mute: false,
            fresh: Vec::new(),
            known: BTreeMap::new(),
            side: BTreeSet::new(),
            failed: Vec::new(),
            changes: Vec::new(),
        };
        bench.go();
        assert_eq!(bench.relay.buckets_held(), 64);
        bench
    }

    /// Commits a row.
    fn write(&mut self, id: i64, key: &str) {
        let (event_id, bytes) = (Uuid::from_u128(id.unsigned_abs().into()), Some(key.as_bytes()));
        let event = OutboxEvent {
            id,
            bucket: hash::bucket_of(bytes, event_id),
            lane_hash: hash::lane_hash(TOPIC, bytes, event_id),
            event_id,
            attempts: 0,
            topic: TOPIC.to_owned(),
            key: bytes.map(<[u8]>::to_vec),
            event_type: "type".to_owned(),
            content_type: "text/plain".to_owned(),
            payload: None,
            headers: None,
            traceparent: None,
            tracestate: None,
        };
        self.fresh.push(event.clone());
        self.known.insert(id, event);
    }

    /// Two seconds pass; what was sent meanwhile.
    fn go(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        for _ in 0..200 {
            self.now += Duration::from_millis(10);
            let commands = self.relay.advance(self.now);
            self.carry_out(commands, &mut sent);
        }
        sent
    }

    fn report(&mut self, sent: Sent, result: Result<(), SendError>) {
        self.report_batch(&[sent], result);
    }

    /// Rows of one batch have one fate, told before anything follows from it.
    fn report_batch(&mut self, batch: &[Sent], result: Result<(), SendError>) {
        let mut commands = Vec::new();
        for sent in batch {
            let (lane, generation, result) = (sent.lane, sent.generation, result.clone());
            self.relay
                .reported(lane, generation, sent.token, result, self.now, &mut commands);
        }
        self.carry_out(commands, &mut Vec::new());
    }

    fn carry_out(&mut self, commands: Vec<Command>, sent: &mut Vec<Sent>) {
        let (relay, now) = (&mut self.relay, self.now);
        for command in commands {
            match command {
                Command::Send {
                    lane,
                    generation,
                    token,
                    event,
                    ..
                } => sent.push(Sent {
                    id: event.id,
                    lane,
                    generation,
                    token,
                }),
                Command::Rebuild(lane, generation) => relay.producer_rebuilt(lane, generation + 1),
                Command::AskTopic(number, _) => relay.topic_known(number, self.topic.clone(), now),
                Command::Control(..) if self.is_mute => {}
                Command::Control(op, request) => {
                    let take = |bucket| Held {
                        bucket,
                        epoch: 1,
                        low_id: 0,
                    };
                    let answer = ControlAnswer {
                        kept: request.renew.iter().map(|held| held.bucket).collect(),
                        acquired: (0..64).take(request.acquire).map(take).collect(),
                        instances: 1,
                        life: Uuid::nil(),
                    };
                    relay.control_done(op, answer, now);
                }
                Command::Read(op, request) => {
                    let answer = ReadAnswer {
                        life: Some(Uuid::nil()),
                        owned: request.buckets.iter().map(|asked| asked.bucket).collect(),
                        rows: std::mem::take(&mut self.fresh),
                        ..ReadAnswer::default()
                    };
                    relay.read_done(op, answer, now);
                }
                Command::Look(op, request) => relay.look_done(op, look(&self.known, &self.side, &request), now),
                Command::Settle(op, rows) => {
                    for row in &rows {
                        self.side.remove(&row.id);
                    }
                    relay.settle_done(op, rows.len() as u64);
                }
                Command::Change(op, request) => {
                    self.changes.push(request.rows.len());
                    let ids = request.rows.iter().map(|row| row.id).collect();
                    for row in request.rows {
                        match row.kind {
                            ChangeKind::Fail { .. } => {
                                self.side.remove(&row.id);
                                self.failed.push(row.id);
                            }
                            ChangeKind::Retry { .. } | ChangeKind::Park => drop(self.side.insert(row.id)),
                        }
                    }
                    relay.change_done(op, ChangeAnswer::Changed(ids), now);
                }
                Command::Mark(op) => relay.mark_done(op, 0),
                Command::Locks(op, _) => relay.locks_done(op, 0, &[]),
            }
        }
    }
}

fn look(known: &BTreeMap<i64, OutboxEvent>, side: &BTreeSet<i64>, request: &LookRequest) -> LookAnswer {
    let row = |id| SideRow {
        event: OutboxEvent::clone(&known[id]),
        due_in: Duration::ZERO,
    };
    LookAnswer {
        life: Some(Uuid::nil()),
        owned: request.buckets.iter().map(|asked| asked.bucket).collect(),
        rows: side.iter().map(row).collect(),
        ..LookAnswer::default()
    }
}

fn bucket(key: &str) -> i16 {
    hash::bucket_of(Some(key.as_bytes()), Uuid::nil())
}

/// Two keys, the first in a bucket that is served before the second's.
fn keys() -> (String, String) {
    let key = |at: i16| (0..).map(|n| format!("key-{n}")).find(|key| bucket(key) == at);
    (key(1).expect("some key"), key(50).expect("some key"))
}

fn ids(sent: &[Sent]) -> Vec<i64> {
    sent.iter().map(|sent| sent.id).collect()
}

#[test]
fn a_stream_of_new_rows_does_not_keep_the_suspects_waiting() {
    // given: rows of two keys in a batch that was refused
    let mut bench = Bench::new();
    let (busy, poison) = keys();
    bench.write(1, &busy);
    let first = bench.go();
    bench.report(first[0], Ok(()));
    bench.write(2, &busy);
    bench.write(3, &poison);
    let batch = bench.go();
    assert_eq!(ids(&batch), [2, 3], "the window is open");
    bench.report(batch[0], Ok(()));
    for attempt in 0..3 {
        // when: more rows of the busy key wait than can be sent
        let sent = if attempt == 0 { batch[1] } else { alone(&mut bench, 3) };
        bench.report(sent, REFUSED());
        for id in 0..5 {
            bench.write(10 * (attempt + 1) + id, &busy);
        }

        // then: the suspect is sent, and alone, before them
        let suspect = bench.go();
        assert_eq!(
            (ids(&suspect), suspect[0].lane),
            (vec![3], Lane::Probe),
            "attempt {attempt}"
        );
        bench.report(suspect[0], REFUSED());
    }
    assert_eq!(bench.relay.take_tally().attempts_failed, 3);
}

/// Acknowledges everything until the row is sent again.
fn alone(bench: &mut Bench, id: i64) -> Sent {
    for _ in 0..50 {
        let sent = bench.go();
        for other in sent.iter().filter(|sent| sent.id != id) {
            bench.report(*other, Ok(()));
        }
        if let Some(found) = sent.iter().find(|sent| sent.id == id) {
            return *found;
        }
    }
    panic!("row {id} is not sent");
}

#[test]
fn followers_of_a_blocked_key_do_not_keep_its_topic_under_suspicion() {
    // given: a batch of a bad row and its follower, refused
    let mut bench = Bench::new();
    let (healthy, poison) = keys();
    bench.write(1, &healthy);
    let first = bench.go();
    bench.report(first[0], Ok(()));
    bench.write(2, &poison);
    bench.write(3, &poison);
    let batch = bench.go();
    assert_eq!(ids(&batch), [2, 3]);
    bench.report_batch(&batch, REFUSED());

    // when: the bad row was found out, and waits for its next attempt
    let suspect = bench.go();
    assert_eq!(ids(&suspect), [2]);
    bench.report(suspect[0], REFUSED());
    bench.write(4, &healthy);

    // then: other keys go on through the main producer
    let sent = bench.go();
    let healthy = sent.iter().find(|sent| sent.id == 4).expect("sent");
    assert_eq!(healthy.lane, Lane::Main);
}

/// A seed of the simulation found it: the topic was under suspicion for a row of another key, whose next row failed for
/// good and so ended the suspicion, in the midst of a look at what may be sent.
#[test]
fn rows_of_a_key_keep_their_order_when_a_suspicion_ends_between_them() {
    // given: a refused row is with the probe, and rows of another key of its bucket wait for what becomes of it
    let mut bench = Bench::new();
    let suspect = (0..).map(|n| format!("key-{n}")).find(|key| bucket(key) == 1);
    let suspect = suspect.expect("some key");
    let other = (0..).map(|n| format!("other-{n}")).find(|key| bucket(key) == 1);
    let other = other.expect("some key");
    bench.write(1, &suspect);
    let first = bench.go();
    bench.report(first[0], REFUSED());
    bench.write(2, &other);
    let probed = bench.go();
    assert_eq!((ids(&probed), probed[0].lane), (vec![1], Lane::Probe));

    // when
    bench.write(3, &suspect);
    bench.fresh[0].headers = Some(vec![0xff]);
    bench.write(4, &other);
    let sent = bench.go();

    // then
    assert_eq!(bench.failed, [3]);
    assert_eq!(ids(&sent)[..1], [2], "{sent:?}");
}

#[test]
fn nothing_is_produced_once_the_lease_may_be_over_by_our_own_clock() {
    // given
    let mut bench = Bench::new();
    bench.write(1, "key");
    let first = bench.go();
    bench.report(first[0], Ok(()));

    // when: renewals are not answered, reads are
    bench.is_mute = true;
    for _ in 0..5 {
        bench.go(); // ten seconds: a lease
    }
    bench.write(2, "key");

    // then
    assert_eq!(ids(&bench.go()), [0; 0]);
}

#[test]
fn a_topic_is_in_trouble_only_as_long_as_rows_wait_for_it() {
    // given
    let mut bench = Bench::new();
    bench.topic = Err(TopicFault::Refused("unknown topic".to_owned()));
    bench.write(1, "key");
    bench.go();
    assert_eq!(bench.relay.troubled_topics().count(), 1);

    // when: its bucket is another instance's
    bench.relay.lose(bucket("key"), 1);

    // then
    assert_eq!(bench.relay.troubled_topics().count(), 0);
}

#[test]
fn what_waits_for_a_missing_topic_makes_room_in_few_statements_however_many_its_keys() {
    // given
    let mut bench = Bench::new();
    bench.topic = Err(TopicFault::Refused("unknown topic".to_owned()));

    // when
    let keys = (0..).map(|n| format!("key-{n}")).filter(|key| bucket(key) == 1);
    for (id, key) in (1..).zip(keys.take(NEARLY_A_RING)) {
        bench.write(id, &key);
    }
    bench.go();

    // then
    assert_eq!(
        bench.changes,
        [1_000, 600],
        "a statement changes a thousand rows at most"
    );
    assert_eq!(bench.relay.take_tally().parked, NEARLY_A_RING as u64);
}

#[test]
fn an_outage_of_all_brokers_moves_no_row() {
    // given
    let mut bench = Bench::new();
    bench.topic = Err(TopicFault::NoAnswer("timed out".to_owned()));

    // when
    for id in (1..).take(NEARLY_A_RING) {
        bench.write(id, "key");
    }
    bench.go();

    // then: they wait where they are, and go as soon as a broker answers
    assert_eq!(bench.changes, [0; 0]);
    bench.topic = Ok(FACTS);
    let sent = (0..10).find_map(|_| Some(bench.go()).filter(|sent| !sent.is_empty()));
    assert_eq!(ids(&sent.expect("sent"))[0], 1);
}

#[test]
fn what_is_set_aside_is_counted_by_its_cause() {
    let mut bench = Bench::new();
    bench.write(1, "key");
    let row = bench.fresh.last_mut().expect("just written");
    row.headers = Some(vec![0xff]);
    bench.go();
    assert_eq!(bench.failed, [1]);
    assert_eq!(bench.relay.take_tally().failed, [("headers", 1)].into());
}
