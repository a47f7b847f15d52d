//! When the next read begins, and how much it asks for.

use super::super::*;
use crate::config::Config;
use crate::domain::event::OutboxEvent;
use crate::ports::{ControlAnswer, Held, LookAnswer, ReadAnswer, ReadRequest, SideRow};
use shared::hash;

const LIFE: Uuid = Uuid::nil();
const READ_TAKES: Duration = Duration::from_millis(2);

/// A relay that holds all buckets, and the read that it wants.
struct Reader {
    relay: Relay,
    now: Duration,
    /// What lies in the side lane, and how many rows of a key the last look has asked for.
    side: Vec<SideRow>,
    looked_for: usize,
}

impl Reader {
    fn new() -> Self {
        let mut reader = Self {
            relay: Relay::new(Config::default().relay(), Rules::default(), 1),
            now: Duration::ZERO,
            side: Vec::new(),
            looked_for: 0,
        };
        // The tenancies' first read, and quiet times after it.
        let (first, request) = reader.next_read();
        reader.answer(first, &request, Vec::new());
        let (second, request) = reader.next_read();
        reader.answer(second, &request, Vec::new());
        reader
    }

    /// The next read, which begins at `now`.
    fn next_read(&mut self) -> (Op, ReadRequest) {
        for _ in 0..10_000 {
            let mut read = None;
            for command in self.relay.advance(self.now) {
                match command {
                    Command::Read(op, request) => read = Some((op, request)),
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
                            life: LIFE,
                        };
                        self.relay.control_done(op, answer, self.now);
                    }
                    Command::Look(op, request) => {
                        self.looked_for = request.rows_per_lane;
                        let answer = LookAnswer {
                            life: Some(LIFE),
                            owned: (0..64).collect(),
                            rows: self.side.clone(),
                            ..LookAnswer::default()
                        };
                        self.relay.look_done(op, answer, self.now);
                    }
                    Command::Mark(op) => self.relay.mark_done(op, 0),
                    _ => {}
                }
            }
            if let Some(read) = read {
                return read;
            }
            self.now += Duration::from_micros(100);
        }
        panic!("no read in a second");
    }

    /// Answers a read with these rows, after the time that it takes.
    fn answer(&mut self, op: Op, request: &ReadRequest, rows: Vec<OutboxEvent>) {
        self.now += READ_TAKES;
        let answer = ReadAnswer {
            life: Some(LIFE),
            owned: request.buckets.iter().map(|asked| asked.bucket).collect(),
            rows,
            ..ReadAnswer::default()
        };
        self.relay.read_done(op, answer, self.now);
    }

    /// The read that was begun last.
    fn under_way(&self) -> (Op, ReadRequest) {
        let reading = self.relay.reading.as_ref().expect("a read is under way");
        (reading.op, reading.request.clone())
    }

    /// Time from the beginning of a read that finds these rows to that of the next.
    fn apart(&mut self, rows: Vec<OutboxEvent>) -> Duration {
        self.relay.wake(self.now);
        let (op, request) = self.next_read();
        let began = self.now;
        self.answer(op, &request, rows);
        self.next_read();
        self.now - began
    }
}

fn rows(bucket: i16, ids: std::ops::Range<i64>) -> Vec<OutboxEvent> {
    ids.map(|id| super::lease::event(id, bucket)).collect()
}

#[test]
fn a_read_that_finds_no_backlog_is_followed_after_three_times_what_it_took() {
    let apart = Reader::new().apart(rows(3, 1..4));
    assert!((READ_TAKES * 3..READ_TAKES * 4).contains(&apart), "{apart:?}");
}

#[test]
fn reads_that_find_many_rows_are_further_apart() {
    let rows = (0..10).flat_map(|bucket| rows(bucket, 1..40)); // 390, and no bucket's share
    let apart = Reader::new().apart(rows.collect());
    assert!((READ_TAKES * 6..READ_TAKES * 7).contains(&apart), "{apart:?}");
}

#[test]
fn with_a_backlog_reads_follow_each_other() {
    let apart = Reader::new().apart(rows(3, 1..65)); // a share of 4,096 among 64
    assert!(apart < READ_TAKES + Duration::from_millis(1), "{apart:?}");
}

#[test]
fn rows_that_come_again_are_no_reason_to_read_at_once() {
    let mut reader = Reader::new();
    reader.apart(rows(3, 1..4));
    // That read is under way: it finds the same rows, and the next one nothing new either.
    let mut began = Vec::new();
    for _ in 0..8 {
        let (op, request) = reader.under_way();
        reader.answer(op, &request, rows(3, 1..4));
        reader.next_read();
        began.push(reader.now);
    }
    let apart: Vec<Duration> = began.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(apart.windows(2).all(|pair| pair[0] <= pair[1]), "{apart:?}");
    assert!(
        *apart.last().expect("several") >= Duration::from_millis(100),
        "{apart:?}"
    );
}

#[test]
fn a_ring_within_the_pause_is_answered_after_it() {
    let mut reader = Reader::new();
    reader.relay.wake(reader.now);
    let (op, request) = reader.next_read();
    let began = reader.now;
    reader.answer(op, &request, rows(3, 1..4));
    reader.relay.wake(reader.now);
    reader.next_read();
    assert!(reader.now - began >= READ_TAKES * 3);
    // and one after a quiet time at once
    let (op, request) = reader.under_way();
    reader.answer(op, &request, Vec::new());
    reader.now += Duration::from_millis(60);
    reader.relay.wake(reader.now);
    let rung = reader.now;
    reader.next_read();
    assert!(reader.now - rung <= Duration::from_millis(1));
}

#[test]
fn buckets_share_a_read_and_those_with_a_backlog_have_what_the_others_leave() {
    let mut reader = Reader::new();
    let (op, request) = {
        reader.relay.wake(reader.now);
        reader.next_read()
    };
    assert!(request.buckets.iter().all(|asked| asked.limit == 64));
    reader.answer(op, &request, rows(3, 1..65));
    let (_, request) = reader.next_read();
    for asked in &request.buckets {
        assert_eq!(asked.limit, if asked.bucket == 3 { 1_024 } else { 64 });
    }
}

/// What a read asks for of buckets 3 and 4, whose backlogs were read so far.
fn limits_where_backlogs_are_at(three: i64, four: i64) -> (usize, usize) {
    let mut reader = Reader::new();
    reader.relay.wake(reader.now);
    let (op, request) = reader.next_read();
    let found = [rows(3, three..three + 64), rows(4, four..four + 64)];
    reader.answer(op, &request, found.concat());
    let (_, request) = reader.next_read();
    assert_eq!(limit(&request, 5), Some(64), "one without a backlog");
    (limit(&request, 3).expect("asked"), limit(&request, 4).expect("asked"))
}

fn limit(request: &ReadRequest, bucket: i16) -> Option<usize> {
    let asked = request.buckets.iter().find(|asked| asked.bucket == bucket);
    asked.map(|asked| asked.limit)
}

#[test]
fn a_bucket_far_ahead_of_the_last_one_is_held_back_and_does_not_stop() {
    assert_eq!(limits_where_backlogs_are_at(1, 10_000), (1_024, 1_024));
    assert_eq!(limits_where_backlogs_are_at(1, 50_000), (1_024, 256));
    assert_eq!(limits_where_backlogs_are_at(50_000, 1), (256, 1_024));
}

#[test]
fn no_bucket_is_held_back_for_one_without_room() {
    let mut reader = Reader::new();
    reader.relay.wake(reader.now);
    let (op, request) = reader.next_read();
    reader.answer(op, &request, [rows(3, 1..65), rows(4, 50_000..50_064)].concat());
    // nothing is acknowledged: after one more read, the ring of bucket 3 has no room for a third
    let (op, request) = reader.next_read();
    assert_eq!((limit(&request, 3), limit(&request, 4)), (Some(1_024), Some(256)));
    reader.answer(op, &request, [rows(3, 65..1_089), rows(4, 50_064..50_320)].concat());
    let (_, request) = reader.next_read();
    assert_eq!((limit(&request, 3), limit(&request, 4)), (Some(960), Some(1_024)));
}

/// Rows of a key that the second look after a start asks for, where so many keys are blocked.
fn looked_for_with_blocked(keys: i64) -> usize {
    let mut reader = Reader::new();
    let blocked = |id| {
        let event = super::lease::event(id, 3);
        SideRow {
            event: OutboxEvent {
                key: None, // each its own
                lane_hash: hash::lane_hash(&event.topic, None, event.event_id),
                ..event
            },
            due_in: Duration::from_secs(60),
        }
    };
    reader.side = (1..=keys).map(blocked).collect();
    for _ in 0..30 {
        let (op, request) = reader.next_read();
        reader.answer(op, &request, Vec::new());
    }
    assert_eq!(reader.relay.keys_blocked(), usize::try_from(keys).expect("few"));
    reader.looked_for
}

#[test]
fn few_blocked_keys_have_more_rows_of_a_look() {
    assert_eq!(looked_for_with_blocked(1), 1_024);
    assert_eq!(looked_for_with_blocked(8), 512);
    assert_eq!(looked_for_with_blocked(40), 256);
}
