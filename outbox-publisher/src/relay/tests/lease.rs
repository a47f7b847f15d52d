//! An owner and its lease: when it stops, and what it does not send.

use super::super::*;
use crate::domain::event::OutboxEvent;
use crate::domain::marks::Snapshot;
use crate::domain::topic::TopicFacts;
use crate::ports::{ChangeKind, ControlAnswer, Held, LookAnswer, ReadAnswer};
use shared::hash;

const LEASE: Duration = Duration::from_secs(10);
const LIFE: Uuid = Uuid::from_u128(7);

/// A relay whose renewals are not answered unless a test says so; everything else is, at once.
struct Held64 {
    relay: Relay,
    renewal: Option<Op>,
    rows: Vec<OutboxEvent>,
    sent: Vec<i64>,
    changes: Vec<ChangeKind>,
}

impl Held64 {
    /// An owner of all buckets, which it took at zero; these rows are in them.
    fn with(rows: Vec<OutboxEvent>) -> Self {
        let config = RelayConfig {
            lease: LEASE,
            ..crate::config::Config::default().relay()
        };
        let mut owner = Self {
            relay: Relay::new(config, Rules::default(), 1),
            renewal: None,
            rows: Vec::new(),
            sent: Vec::new(),
            changes: Vec::new(),
        };
        let acquired = |epoch| {
            (0..64).map(move |bucket| Held {
                bucket,
                epoch,
                low_id: 0,
            })
        };
        for taken in [Vec::new(), acquired(1).collect()] {
            owner.turn(Duration::ZERO);
            owner.answer_renewal(taken, Duration::ZERO);
        }
        owner.turn(Duration::ZERO); // its first look
        owner.rows = rows;
        owner
    }

    fn answer_renewal(&mut self, acquired: Vec<Held>, now: Duration) {
        let op = self.renewal.take().expect("a renewal is under way");
        let answer = ControlAnswer {
            kept: (0..64).collect(),
            acquired,
            instances: 1,
            life: LIFE,
        };
        self.relay.control_done(op, answer, now);
    }

    /// Carries out what the relay wants, until it wants no more at this time.
    fn turn(&mut self, now: Duration) {
        for _ in 0..20 {
            for command in self.relay.advance(now) {
                self.carry_out(command, now);
            }
        }
    }

    fn carry_out(&mut self, command: Command, now: Duration) {
        match command {
            Command::Control(op, _) => self.renewal = Some(op),
            Command::Read(op, _) => {
                let answer = ReadAnswer {
                    snapshot: Snapshot::default(),
                    sample: 9,
                    life: Some(LIFE),
                    owned: (0..64).collect(),
                    rows: std::mem::take(&mut self.rows),
                    ..ReadAnswer::default()
                };
                self.relay.read_done(op, answer, now);
            }
            Command::Look(op, _) => {
                let answer = LookAnswer {
                    life: Some(LIFE),
                    owned: (0..64).collect(),
                    ..LookAnswer::default()
                };
                self.relay.look_done(op, answer, now);
            }
            Command::AskTopic(number, _) => {
                let facts = TopicFacts {
                    partitions: 1,
                    record_bytes_max: Some(1 << 20),
                };
                self.relay.topic_known(number, Ok(facts), now);
            }
            Command::Send {
                lane,
                generation,
                token,
                event,
                ..
            } => {
                self.sent.push(event.id);
                let mut next = Vec::new();
                self.relay.reported(lane, generation, token, Ok(()), now, &mut next);
                for command in next {
                    self.carry_out(command, now);
                }
            }
            Command::Change(_, request) => self.changes.extend(request.rows.into_iter().map(|row| row.kind)),
            Command::Mark(..) | Command::Settle(..) | Command::Locks(..) | Command::Rebuild(..) => {}
        }
    }
}

pub(super) fn event(id: i64, bucket: i16) -> OutboxEvent {
    let (key, event_id) = (b"K".to_vec(), Uuid::from_u128(id as u128));
    OutboxEvent {
        id,
        bucket,
        lane_hash: hash::lane_hash("t", Some(&key), event_id),
        event_id,
        attempts: 0,
        topic: "t".to_owned(),
        key: Some(key),
        event_type: String::new(),
        content_type: String::new(),
        payload: None,
        headers: None,
        traceparent: None,
        tracestate: None,
    }
}

fn bucket() -> i16 {
    hash::bucket_of(Some(b"K"), Uuid::nil())
}

#[test]
fn an_owner_stops_producing_when_its_lease_may_be_over_and_goes_on_when_it_is_renewed() {
    // given an owner whose next renewal is never answered, and rows that it reads meanwhile
    let late = LEASE.mul_f64(0.9);
    let mut owner = Held64::with(vec![event(1, bucket())]);
    owner.turn(LEASE / 10);
    assert_eq!(owner.sent, [1], "while the lease lasts");
    owner.relay.wake(LEASE / 10);
    owner.rows = vec![event(2, bucket())];
    // when its own clock nears the end of the lease
    owner.turn(late);
    // then it has the row in hand and does not send it
    assert_eq!((owner.rows.len(), owner.sent.len()), (0, 1));
    // when the renewal is answered, long after it was sent
    owner.answer_renewal(Vec::new(), late);
    owner.turn(late);
    // then it still does not: the lease counts from the sending
    assert_eq!(owner.sent, [1]);
    // when a renewal sent now is answered
    owner.answer_renewal(Vec::new(), late);
    owner.turn(late);
    // then
    assert_eq!(owner.sent, [1, 2]);
}

#[test]
fn a_row_whose_bucket_disagrees_with_its_key_is_set_aside_and_never_sent() {
    // given a row that another hash has put under this bucket: its key has another owner
    let mut owner = Held64::with(vec![event(1, (bucket() + 1) % 64), event(2, bucket())]);
    // when
    owner.turn(Duration::from_secs(1));
    // then
    assert_eq!(owner.sent, [2]);
    let [ChangeKind::Fail { error }] = &owner.changes[..] else {
        panic!("{:?}", owner.changes);
    };
    assert!(error.contains("does not match the key"), "{error}");
}
