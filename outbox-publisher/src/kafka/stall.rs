//! Partitions whose records go nowhere although brokers answer, by the statistics of their producer.
//!
//! A broker that comes back answers for a moment that a partition has no leader. librdkafka drops such an answer
//! where it stands in that to a produce request, and may keep the partition's records for ever (issue 5430); it may
//! also go on to ask who leads no more (issue 5593). Only a new client helps. What it held is sent again in order,
//! as after any error; nothing of it is under way, so nothing of it can come late.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::statistics::Statistics;

/// Without an acknowledgement for so long a client is given up, the first time.
const PATIENCE: Duration = Duration::from_secs(20);
/// A partition may be without a leader for long: then a new client helps no more than the old one, and is asked for
/// more and more rarely.
const PATIENCE_MAX: Duration = Duration::from_secs(600);

/// How long a producer lane may hold records of a partition without an acknowledgement. Lives of a lane share it.
#[derive(Debug, Clone)]
pub(super) struct Patience(Arc<AtomicU64>);

impl Default for Patience {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(PATIENCE.as_secs())))
    }
}

impl Patience {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn grow(&self) {
        self.0
            .store((2 * self.now()).min(PATIENCE_MAX).as_secs(), Ordering::Relaxed);
    }

    fn renew(&self) {
        self.0.store(PATIENCE.as_secs(), Ordering::Relaxed);
    }
}

/// A partition's records wait since then, by the client's clock in microseconds, and so far came acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waiting {
    since: i64,
    acknowledged: u64,
}

/// One life of a producer.
#[derive(Debug, Default)]
pub(super) struct StallWatch {
    patience: Patience,
    waiting: Mutex<HashMap<(String, i32), Waiting>>,
}

impl StallWatch {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            waiting: Mutex::default(),
        }
    }

    /// No broker answers: that is what the records wait for.
    pub(super) fn excuse(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Why this life must end, where statistics say that one of its partitions has stalled.
    pub(super) fn see(&self, statistics: &Statistics) -> Option<String> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *waiting);
        let mut stalled = None;
        for (topic, partition) in statistics.topics.values().flat_map(|topic| {
            topic
                .partitions
                .values()
                .map(move |partition| (&topic.topic, partition))
        }) {
            let queued = partition.msgq_cnt + partition.xmit_msgq_cnt;
            if queued + partition.msgs_inflight == 0 {
                continue;
            }
            let place = (topic.clone(), partition.partition);
            let now = Waiting {
                since: statistics.ts,
                acknowledged: partition.acked_msgid,
            };
            let since = before.get(&place).filter(|then| then.acknowledged == now.acknowledged);
            let now = since.copied().unwrap_or(now);
            let lasts = Duration::from_micros(statistics.ts.saturating_sub(now.since).unsigned_abs());
            // What is under way may still be answered, and would come late if it were sent again.
            if lasts >= self.patience.now() && partition.msgs_inflight == 0 {
                stalled = Some(format!(
                    "{queued} records to {topic} [{}] got no acknowledgement for {} s, though brokers answer",
                    partition.partition,
                    lasts.as_secs()
                ));
            }
            waiting.insert(place, now);
        }
        let has_moved = |(place, then): (&(String, i32), &Waiting)| {
            let now = waiting.get(place);
            now.is_none_or(|now| now.acknowledged != then.acknowledged)
        };
        if stalled.is_some() {
            self.patience.grow();
        } else if (waiting.is_empty() || !before.is_empty()) && before.iter().all(has_moved) {
            self.patience.renew();
        }
        stalled
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::{Partition, Topic};

    use super::*;

    /// Statistics at so many seconds of partitions 0 ..., with (records queued, in flight, acknowledged).
    fn statistics(second: i64, partitions: &[(i64, i64, u64)]) -> Statistics {
        let partitions = (0..)
            .zip(partitions)
            .map(|(number, (queued, in_flight, acknowledged))| {
                let partition = Partition {
                    partition: number,
                    msgq_cnt: *queued,
                    msgs_inflight: *in_flight,
                    acked_msgid: *acknowledged,
                    ..Partition::default()
                };
                (number, partition)
            });
        let topic = Topic {
            topic: "t".to_owned(),
            partitions: partitions.collect(),
            ..Topic::default()
        };
        Statistics {
            ts: second * 1_000_000,
            topics: [("t".to_owned(), topic)].into(),
            ..Statistics::default()
        }
    }

    #[test]
    fn records_that_get_no_acknowledgement_while_another_partitions_do_end_the_life() {
        let watch = StallWatch::default();
        assert_eq!(watch.see(&statistics(0, &[(3, 0, 7), (3, 0, 1)])), None);
        assert_eq!(watch.see(&statistics(19, &[(4, 0, 7), (3, 0, 2)])), None);
        let told = watch.see(&statistics(20, &[(4, 0, 7), (3, 0, 3)])).unwrap();
        assert!(
            told.starts_with("4 records to t [0] got no acknowledgement for 20 s"),
            "{told}"
        );
    }

    #[test]
    fn what_moves_is_empty_or_is_under_way_does_not() {
        type Partition = fn(i64) -> (i64, i64, u64);
        let moves: Partition = |second| (3, 0, second.unsigned_abs());
        let under_way: Partition = |_| (3, 1, 7);
        let is_empty: Partition = |_| (0, 0, 7);
        for partition in [moves, under_way, is_empty] {
            let watch = StallWatch::default();
            let told = (0..60).find_map(|second| watch.see(&statistics(second, &[partition(second)])));
            assert_eq!(told, None);
        }
    }

    #[test]
    fn the_time_in_which_no_broker_answers_does_not_count() {
        let watch = StallWatch::default();
        assert_eq!(watch.see(&statistics(0, &[(3, 0, 7)])), None);
        watch.excuse();
        assert_eq!(watch.see(&statistics(600, &[(3, 0, 7)])), None);
        assert_eq!(watch.see(&statistics(619, &[(3, 0, 7)])), None);
        assert!(watch.see(&statistics(620, &[(3, 0, 7)])).is_some());
    }

    #[test]
    fn a_partition_that_stays_stalled_ends_lives_more_and_more_rarely_until_it_moves() {
        // given a lane whose lives all meet the same
        let patience = Patience::default();
        let lives = |stalled: u64| {
            let watch = StallWatch::new(patience.clone());
            (0..).find(|second| watch.see(&statistics(*second, &[(3, 0, stalled)])).is_some())
        };
        // then
        let lasted: Vec<Option<i64>> = (0..7).map(|_| lives(7)).collect();
        assert_eq!(lasted, [20, 40, 80, 160, 320, 600, 600].map(Some));
        // when everything has got through
        let watch = StallWatch::new(patience.clone());
        watch.see(&statistics(0, &[(0, 0, 9)]));
        // then
        assert_eq!(lives(9), Some(20));
    }
}
