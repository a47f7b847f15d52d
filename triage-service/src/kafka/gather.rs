//! How many records are handed over at once. A transaction costs Postgres, the outbox and its publisher something
//! beside its records, so those that come one by one share some.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Chunks that are not full are this many times as far apart as a transaction takes.
const TIMES: u64 = 3;

/// How far apart chunks are that are not full.
#[derive(Debug)]
pub(super) struct Pace {
    apart_us: AtomicU64,
    apart_max: Duration,
}

impl Pace {
    /// Nothing is known of transactions yet. They are never further apart than `apart_max`.
    pub(super) const fn new(apart_max: Duration) -> Self {
        Self {
            apart_us: AtomicU64::new(0),
            apart_max,
        }
    }

    /// A transaction has committed after so long.
    pub(super) fn committed(&self, took: Duration) {
        let apart = took.saturating_mul(TIMES as u32).min(self.apart_max);
        self.apart_us.store(apart.as_micros() as u64, Ordering::Relaxed);
    }

    fn apart(&self) -> Duration {
        Duration::from_micros(self.apart_us.load(Ordering::Relaxed))
    }
}

/// What came of asking for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// There was one, and it is kept.
    Taken,
    /// There is none, or an error after which the client goes on.
    Nothing,
    /// The client cannot go on.
    Failed,
}

/// Takes records up to a chunk, and waits for more of them until it is time.
#[derive(Debug)]
pub(super) struct Gatherer {
    chunk_records: usize,
    /// Longest wait for the first record.
    poll: Duration,
    /// When the next chunk is handed over at the earliest, unless it is full.
    due: Instant,
}

impl Gatherer {
    pub(super) fn new(chunk_records: usize, poll: Duration) -> Self {
        Self {
            chunk_records,
            poll,
            due: Instant::now(),
        }
    }

    /// Asks for records with the time that may be waited for one, until a chunk is full, or nothing more is at hand
    /// and it is time. A record that comes after a quiet moment waits for nobody. False if the client cannot go on.
    pub(super) fn gather(&mut self, pace: &Pace, mut ask: impl FnMut(Duration) -> Asked) -> bool {
        let mut wait = self.poll;
        let mut taken = 0;
        while taken < self.chunk_records {
            match ask(wait) {
                Asked::Taken => taken += 1,
                Asked::Nothing if taken == 0 || wait.is_zero() => break,
                // Not yet time: it was an event, such as that offsets are committed, which ends a wait early.
                Asked::Nothing => {}
                Asked::Failed => return false,
            }
            wait = whole_millis(self.due.saturating_duration_since(Instant::now()));
        }
        // A wait for nothing puts off nobody.
        if taken > 0 {
            let is_full = taken == self.chunk_records;
            self.due = Instant::now() + if is_full { Duration::ZERO } else { pace.apart() };
        }
        true
    }
}

/// Rounded up: the client waits whole milliseconds and asks again and again for the rest of one.
fn whole_millis(wait: Duration) -> Duration {
    Duration::from_millis(wait.as_micros().div_ceil(1_000) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A source that has so many records at hand, and one more whenever there is time to wait for it.
    fn source(mut at_hand: usize) -> impl FnMut(Duration) -> Asked {
        move |wait| {
            if at_hand == 0 && wait < LONG / 2 {
                return Asked::Nothing;
            }
            at_hand = at_hand.saturating_sub(1);
            Asked::Taken
        }
    }

    fn taken(gatherer: &mut Gatherer, pace: &Pace, mut source: impl FnMut(Duration) -> Asked) -> usize {
        let mut count = 0;
        assert!(gatherer.gather(pace, |wait| {
            let asked = source(wait);
            count += usize::from(asked == Asked::Taken);
            asked
        }));
        count
    }

    #[test]
    fn records_one_by_one_are_gathered_once_transactions_are_known_to_take_something() {
        let pace = Pace::new(LONG);
        let mut gatherer = Gatherer::new(500, LONG);
        assert_eq!(taken(&mut gatherer, &pace, source(0)), 1, "the first waits for nobody");
        assert_eq!(taken(&mut gatherer, &pace, source(7)), 7, "what is at hand");
        pace.committed(LONG);
        assert_eq!(taken(&mut gatherer, &pace, |_| Asked::Nothing), 0);
        assert_eq!(taken(&mut gatherer, &pace, source(0)), 1, "after a quiet moment");
        assert_eq!(
            taken(&mut gatherer, &pace, source(7)),
            500,
            "and all that come until it is time"
        );
    }

    #[test]
    fn an_event_of_the_client_ends_no_wait_for_records() {
        let pace = Pace::new(LONG);
        let mut gatherer = Gatherer::new(500, LONG);
        pace.committed(LONG);
        assert_eq!(taken(&mut gatherer, &pace, source(0)), 1);
        let mut is_record = false;
        let by_turns = |_| {
            is_record = !is_record;
            if is_record { Asked::Taken } else { Asked::Nothing }
        };
        assert_eq!(taken(&mut gatherer, &pace, by_turns), 500);
    }

    #[test]
    fn behind_a_full_chunk_nothing_is_waited_for() {
        let pace = Pace::new(LONG);
        pace.committed(LONG);
        let mut gatherer = Gatherer::new(500, LONG);
        assert_eq!(taken(&mut gatherer, &pace, source(600)), 500);
        assert_eq!(taken(&mut gatherer, &pace, source(100)), 100);
    }

    #[test]
    fn chunks_are_three_times_as_far_apart_as_a_transaction_takes_and_no_further_than_the_bound() {
        let pace = Pace::new(Duration::from_millis(10));
        assert_eq!(pace.apart(), Duration::ZERO);
        pace.committed(Duration::from_micros(700));
        assert_eq!(pace.apart(), Duration::from_micros(2_100));
        pace.committed(LONG);
        assert_eq!(pace.apart(), Duration::from_millis(10));
        let never = Pace::new(Duration::ZERO);
        never.committed(LONG);
        assert_eq!(never.apart(), Duration::ZERO);
    }

    #[test]
    fn a_client_that_cannot_go_on_ends_it_and_waits_are_whole_milliseconds() {
        let pace = Pace::new(LONG);
        assert!(!Gatherer::new(500, LONG).gather(&pace, |_| Asked::Failed));
        assert_eq!(whole_millis(Duration::from_micros(1)), Duration::from_millis(1));
        assert_eq!(whole_millis(Duration::ZERO), Duration::ZERO);
    }
}
