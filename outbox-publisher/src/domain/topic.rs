//! A destination: what is known of it, whether it is paused, how far its windows are open.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shared::kafka::is_topic_name;

use super::retry;

/// Which of the two producers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Healthy keys of healthy topics.
    Main,
    /// Side rows, and topics under suspicion: a forbidden topic must not kill the healthy ones again
    /// and again.
    Probe,
}

impl Lane {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Main, Self::Probe];

    /// The one that it is not.
    pub fn other(self) -> Self {
        match self {
            Self::Main => Self::Probe,
            Self::Probe => Self::Main,
        }
    }
}

/// Why nothing is known of a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicFault {
    /// No broker answers: every other topic is in the same place.
    #[error("{0}")]
    NoAnswer(String),
    /// The brokers answer, and do not have it or do not let us at it.
    #[error("{0}")]
    Refused(String),
    /// The brokers told its partitions, and no more.
    #[error("{reason}")]
    LimitNotTold {
        /// How many partitions it has.
        partitions: i32,
        /// Why its limit is not known.
        reason: String,
    },
}

/// What the broker says of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicFacts {
    /// How many partitions it has.
    pub partitions: i32,
    /// The largest record it takes, in bytes; `None` where the broker does not say, as without the right to
    /// describe the topic. Then the broker alone judges what is too large.
    pub record_bytes_max: Option<usize>,
}

impl TopicFacts {
    /// Whether a batch of this size is known to be too large.
    pub fn takes_less_than(&self, batch_bytes: usize) -> bool {
        self.record_bytes_max.is_some_and(|limit| limit < batch_bytes)
    }
}

/// Rows of one partition that one producer has not had acknowledged.
#[derive(Debug, Clone, Copy, Default)]
pub struct Window {
    /// A first batch of this producer has been acknowledged: the broker now holds a state against which
    /// a gap is seen. Brokers before 4.5 take any first sequence.
    pub is_open: bool,
    /// Sent and not yet reported.
    pub in_flight: usize,
    last_ack: Duration,
}

/// A topic that rows name.
#[derive(Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Kafka accepts its name. Of another nothing is asked: its rows are set aside whatever the answer, and the client's
    /// statistics, by which silence and stalls are seen, cannot be read once they hold a name with a line break.
    is_name_legal: bool,
    /// What is known of it.
    pub facts: Option<TopicFacts>,
    /// The limit that was first read: below it, a lowered limit is the topic's trouble, not the row's.
    first_limit: Option<usize>,
    asked_at: Option<Duration>,
    is_asking: bool,
    paused: Option<Paused>,
    troubles: u32,
    /// Its rows go through the probe, one at a time.
    pub is_suspect: bool,
    /// The rows that were in a refused batch: (bucket, id). The last of them to be cleared clears the topic.
    pub suspects: BTreeSet<(i16, i64)>,
    windows: [BTreeMap<i32, Window>; 2],
}

/// Why and until when nothing is sent to a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paused {
    /// Since when, without a record that got through.
    pub since: Duration,
    /// When the next try is due.
    pub until: Duration,
    /// What went wrong.
    pub reason: String,
    /// No broker answers, so that other topics take nothing either.
    pub is_everywhere: bool,
}

/// Timing of pauses and windows.
#[derive(Debug, Clone)]
pub struct TopicTimes {
    /// First pause after trouble.
    pub pause_initial: Duration,
    /// Longest pause.
    pub pause_max: Duration,
    /// How long facts are believed.
    pub refresh: Duration,
    /// An idle window closes: the broker may have forgotten the producer (`producer.id.expiration.ms`).
    pub window_idle: Duration,
}

impl Topic {
    /// A topic that nothing is known of.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            is_name_legal: is_topic_name(name),
            facts: None,
            first_limit: None,
            asked_at: None,
            is_asking: false,
            paused: None,
            troubles: 0,
            is_suspect: false,
            suspects: BTreeSet::new(),
            windows: Default::default(),
        }
    }

    /// Whether the broker should be asked about it now. Marks it as asked.
    pub fn ask(&mut self, now: Duration, times: &TopicTimes) -> bool {
        if !self.is_name_legal || self.is_asking || self.is_paused(now) {
            return false;
        }
        let is_due = match self.asked_at {
            None => true,
            Some(at) => self.facts.is_none() || now.saturating_sub(at) >= times.refresh,
        };
        self.is_asking = is_due;
        if is_due {
            self.asked_at = Some(now);
        }
        is_due
    }

    /// The broker has answered.
    pub fn learn(&mut self, facts: TopicFacts, now: Duration, times: &TopicTimes, jitter: f64) {
        self.is_asking = false;
        let Some(limit) = facts.record_bytes_max else {
            let reason = "max.message.bytes, known before, cannot be read (is DescribeConfigs still granted?)";
            let fault = TopicFault::Refused(reason.to_owned());
            return self.learn_partitions(facts.partitions, &fault, now, times, jitter);
        };
        self.facts = Some(facts);
        let first = *self.first_limit.get_or_insert(limit);
        if limit < first {
            // Rows that were written for the old limit are not at fault.
            let reason = format!("max.message.bytes was lowered from {first} to {limit}");
            self.pause(reason, now, times, jitter);
        }
    }

    /// The broker could not say all of it, or refused.
    pub fn unknown(&mut self, fault: &TopicFault, now: Duration, times: &TopicTimes, jitter: f64) {
        self.is_asking = false;
        match *fault {
            TopicFault::LimitNotTold { partitions, .. } => self.learn_partitions(partitions, fault, now, times, jitter),
            TopicFault::NoAnswer(_) | TopicFault::Refused(_) => self.lose(fault, now, times, jitter),
        }
    }

    /// A limit that is known goes on to hold. After trouble only the limit itself tells whether a row is at fault.
    fn learn_partitions(
        &mut self,
        partitions: i32,
        fault: &TopicFault,
        now: Duration,
        times: &TopicTimes,
        jitter: f64,
    ) {
        if self.facts.is_none() && self.first_limit.is_some() {
            return self.lose(fault, now, times, jitter);
        }
        self.facts = Some(TopicFacts {
            partitions,
            record_bytes_max: self.facts.and_then(|known| known.record_bytes_max),
        });
    }

    fn lose(&mut self, fault: &TopicFault, now: Duration, times: &TopicTimes, jitter: f64) {
        self.facts = None;
        self.pause(fault.to_string(), now, times, jitter);
        if let Some(paused) = &mut self.paused {
            paused.is_everywhere = !matches!(fault, TopicFault::Refused(_));
        }
    }

    /// Stops sending for a while: the destination's trouble, no row's.
    pub fn pause(&mut self, reason: String, now: Duration, times: &TopicTimes, jitter: f64) {
        self.troubles = self.troubles.saturating_add(1);
        let until = now + retry::pause(times.pause_initial, times.pause_max, self.troubles, jitter);
        let since = self.paused.as_ref().map_or(now, |paused| paused.since);
        self.paused = Some(Paused {
            since,
            until,
            reason,
            is_everywhere: false,
        });
        self.asked_at = None; // what is known of it is asked again before the next try
    }

    /// What is known may have changed: nothing is sent before it was asked again.
    pub fn doubt(&mut self) {
        self.facts = None;
    }

    /// Why nothing gets through, while that lasts. A pause that is over counts until a record got through.
    pub fn trouble(&self) -> Option<&Paused> {
        self.paused.as_ref()
    }

    /// Whether rows that wait for it stand before rows of other topics, which could be sent.
    pub fn is_in_the_way(&self) -> bool {
        self.paused.as_ref().is_some_and(|paused| !paused.is_everywhere)
    }

    /// Whether nothing may be sent now.
    pub fn is_paused(&self, now: Duration) -> bool {
        self.paused.as_ref().is_some_and(|paused| now < paused.until)
    }

    /// When the pause ends.
    pub fn paused_until(&self) -> Option<Duration> {
        self.paused.as_ref().map(|paused| paused.until)
    }

    /// Whether rows may be sent: known, not paused, not being asked about after trouble.
    pub fn is_ready(&self, now: Duration) -> bool {
        self.facts.is_some() && !self.is_paused(now) && !(self.is_asking && self.paused.is_some())
    }

    /// The window of a partition, closed again if it was idle for too long.
    pub fn window(&mut self, lane: Lane, partition: i32, now: Duration, times: &TopicTimes) -> &mut Window {
        let window = self.windows[lane as usize].entry(partition).or_default();
        if window.is_open && window.in_flight == 0 && now.saturating_sub(window.last_ack) > times.window_idle {
            window.is_open = false;
        }
        window
    }

    /// A record of a partition was acknowledged. True if this opened the window.
    pub fn acknowledged(&mut self, lane: Lane, partition: i32, now: Duration) -> bool {
        self.troubles = 0;
        self.paused = None;
        let window = self.windows[lane as usize].entry(partition).or_default();
        window.in_flight = window.in_flight.saturating_sub(1);
        window.last_ack = now;
        !std::mem::replace(&mut window.is_open, true)
    }

    /// A record of a partition is no longer in the producer's hands.
    pub fn returned(&mut self, lane: Lane, partition: i32) {
        if let Some(window) = self.windows[lane as usize].get_mut(&partition) {
            window.in_flight = window.in_flight.saturating_sub(1);
        }
    }

    /// Rows of this topic in a producer's hands.
    pub fn in_flight(&self, lane: Lane) -> usize {
        self.windows[lane as usize]
            .values()
            .map(|window| window.in_flight)
            .sum()
    }

    /// A new producer begins: the broker knows nothing of it.
    pub fn close_windows(&mut self, lane: Lane) {
        self.windows[lane as usize].clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times() -> TopicTimes {
        TopicTimes {
            pause_initial: Duration::from_secs(1),
            pause_max: Duration::from_secs(30),
            refresh: Duration::from_secs(60),
            window_idle: Duration::from_secs(3600),
        }
    }

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn nothing_is_asked_of_a_name_that_kafka_refuses() {
        for name in ["", ".", "a b", "a\nb", "ümlaut"] {
            assert!(!Topic::new(name).ask(Duration::ZERO, &times()), "{name:?}");
        }
        assert!(Topic::new("t").ask(Duration::ZERO, &times()));
    }

    #[test]
    fn a_lowered_limit_pauses_the_topic_until_it_is_back() {
        let mut topic = Topic::new("t");
        let mut facts = TopicFacts {
            partitions: 1,
            record_bytes_max: Some(1000),
        };
        topic.learn(facts, S, &times(), 1.0);
        assert!(topic.is_ready(S));
        facts.record_bytes_max = Some(10);
        topic.learn(facts, S, &times(), 1.0);
        assert!(!topic.is_ready(S));
        assert!(topic.trouble().unwrap().reason.contains("from 1000 to 10"));
        facts.record_bytes_max = Some(1000);
        assert!(topic.ask(3 * S, &times()), "asked again when the pause is over");
        assert!(!topic.is_ready(3 * S), "nothing is sent before the answer");
        topic.learn(facts, 3 * S, &times(), 1.0);
        assert!(topic.is_ready(3 * S));
    }

    #[test]
    fn a_limit_that_cannot_be_read_for_once_is_believed_and_after_trouble_waited_for() {
        let facts = |record_bytes_max| TopicFacts {
            partitions: 1,
            record_bytes_max,
        };
        let mut topic = Topic::new("t");
        topic.learn(facts(None), S, &times(), 1.0);
        assert!(topic.is_ready(S), "a broker that never says judges by itself");
        topic.learn(facts(Some(1000)), S, &times(), 1.0);
        topic.learn(facts(None), S, &times(), 1.0);
        assert_eq!(topic.facts, Some(facts(Some(1000))));
        let silence = TopicFault::LimitNotTold {
            partitions: 1,
            reason: "no answer".to_owned(),
        };
        topic.unknown(&silence, S, &times(), 1.0);
        assert_eq!(topic.facts, Some(facts(Some(1000))));
        topic.doubt();
        topic.unknown(&silence, S, &times(), 1.0);
        assert!(
            !topic.is_ready(S) && !topic.is_in_the_way(),
            "others hear nothing either"
        );
        topic.learn(facts(None), S, &times(), 1.0);
        assert!(!topic.is_ready(S) && topic.is_in_the_way());
        assert!(topic.trouble().unwrap().reason.contains("cannot be read"));
    }

    #[test]
    fn an_idle_window_closes() {
        let mut topic = Topic::new("t");
        assert!(topic.acknowledged(Lane::Main, 0, S));
        assert!(topic.window(Lane::Main, 0, S, &times()).is_open);
        assert!(!topic.window(Lane::Main, 0, 3602 * S, &times()).is_open);
    }
}
