//! What a client that lives long says about its brokers, by its statistics.
//!
//! A Metadata answer that names topics and no broker makes librdkafka drop every broker that it knew, those
//! of `bootstrap.servers` among them (issue 5301). It begins to bootstrap again from the thread of the last
//! broker to go down; if the answer is done with after that, it stops the timer of just that, and nothing
//! starts it again. Then no broker is left that could be asked, and the client stands still for ever.
//!
//! Another trouble that it does not tell: where a network swallows packets, a connection on which nothing
//! is due looks alive.

use std::ffi::CString;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::bindings;
use rdkafka::client::{Client, ClientContext};
use rdkafka::statistics::Statistics;

/// How often a client that is watched tells its statistics, in milliseconds (`statistics.interval.ms`).
pub const STATISTICS_INTERVAL_MS: &str = "2000";
/// What people are told of a client for which [`Finding::Forgotten`] holds.
pub const FORGOTTEN: &str = "the Kafka client has forgotten every broker, and would never find one again";

/// Kafka counts as silent after so long; statistics may come more often.
const SILENCE: Duration = Duration::from_secs(4);

/// What statistics say together with those before. Once alone may be the moment between two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// A broker answers, or owes no answer on a connection that stands.
    Well,
    /// In so long no broker has answered, though one owes an answer or none is connected.
    Silent(Duration),
    /// No broker is known, and the client will find none by itself: see [`remind`].
    Forgotten,
}

/// What of one client's statistics is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Glimpse {
    /// Microseconds of the client's clock.
    at: i64,
    /// A broker is known that was configured, or learned from another. What is left in the list of a client
    /// that forgot them is the group's coordinator at most, which is none of these.
    knows_brokers: bool,
    /// No broker is connected, or one owes an answer. A connection may well be closed for its idleness, and is
    /// made again within a second.
    lacks_an_answer: bool,
    /// Answers of all brokers so far.
    answers: i64,
    /// Since when nothing was heard though it should have been, by the same clock.
    silent_from: Option<i64>,
}

impl From<&Statistics> for Glimpse {
    fn from(statistics: &Statistics) -> Self {
        let brokers = || statistics.brokers.values();
        Self {
            at: statistics.ts,
            knows_brokers: brokers().any(|broker| matches!(broker.source.as_str(), "configured" | "learned")),
            lacks_an_answer: !brokers().any(|broker| broker.state == "UP")
                || brokers().any(|broker| broker.waitresp_cnt > 0),
            answers: statistics.rx,
            silent_from: None,
        }
    }
}

/// What a client's statistics say after those `before`, of which it keeps what the next ones need.
fn judge(before: Glimpse, statistics: &Statistics) -> (Glimpse, Finding) {
    let mut now = Glimpse::from(statistics);
    if before.lacks_an_answer && now.lacks_an_answer && before.answers == now.answers {
        now.silent_from = before.silent_from.or(Some(before.at));
    }
    let silence = now.silent_from.map(|from| now.at.saturating_sub(from).unsigned_abs());
    let finding = match silence.map(Duration::from_micros) {
        _ if !before.knows_brokers && !now.knows_brokers => Finding::Forgotten,
        Some(silence) if silence >= SILENCE => Finding::Silent(silence),
        Some(_) | None => Finding::Well,
    };
    (now, finding)
}

/// One client's statistics, each judged with those before.
#[derive(Debug, Default)]
pub struct BrokerWatch(Mutex<Option<Glimpse>>);

impl BrokerWatch {
    /// What these and the statistics before them say.
    pub fn see(&self, statistics: &Statistics) -> Finding {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, finding) = match *last {
            Some(before) => judge(before, statistics),
            None => (Glimpse::from(statistics), Finding::Well),
        };
        *last = Some(now);
        finding
    }
}

/// Tells a client that has forgotten every broker those of `bootstrap.servers` again, and whether it took any:
/// it connects within a second, and learns the others from them. Does not wait, neither for a name nor for a broker.
///
/// The library keeps the text once more with each call, so this is for a client for which [`Finding::Forgotten`]
/// holds. Source: `rd_kafka_brokers_add` in its `rdkafka.h`.
#[expect(unsafe_code, reason = "the client has no safe function that adds a broker")]
pub fn remind<C: ClientContext>(client: &Client<C>, bootstrap_servers: &str) -> bool {
    let Ok(brokers) = CString::new(bootstrap_servers) else {
        return false;
    };
    // SAFETY: the handle lives as long as `client`, the function may be called from any thread, and it copies the
    // text.
    let added = unsafe { bindings::rd_kafka_brokers_add(client.native_ptr(), brokers.as_ptr()) };
    added > 0
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::Broker;

    use super::*;

    /// Statistics at so many seconds, with brokers of (source, state, answers owed) and all answers so far.
    fn statistics(second: i64, brokers: &[(&str, &str, i64)], answers: i64) -> Statistics {
        let brokers = brokers.iter().enumerate().map(|(number, (source, state, owed))| {
            let broker = Broker {
                source: (*source).to_owned(),
                state: (*state).to_owned(),
                waitresp_cnt: *owed,
                ..Broker::default()
            };
            (number.to_string(), broker)
        });
        Statistics {
            ts: second * 1_000_000,
            brokers: brokers.collect(),
            rx: answers,
            ..Statistics::default()
        }
    }

    /// What a watch says of each of these.
    fn findings(all: &[Statistics]) -> Vec<Finding> {
        let watch = BrokerWatch::default();
        all.iter().map(|statistics| watch.see(statistics)).collect()
    }

    #[test]
    fn a_client_without_a_broker_in_two_statistics_has_forgotten_them() {
        let known = statistics(5, &[("learned", "UP", 0)], 7);
        let none = |second| statistics(second, &[], 0);
        let coordinator = |second| statistics(second, &[("logical", "UP", 0)], 9);
        assert_eq!(
            findings(&[known.clone(), none(10), none(15)]),
            [Finding::Well, Finding::Well, Finding::Forgotten]
        );
        assert_eq!(
            findings(&[known, coordinator(10), coordinator(15)]),
            [Finding::Well, Finding::Well, Finding::Forgotten],
            "the coordinator's connection leads to no other broker"
        );
    }

    #[test]
    fn a_client_that_begins_from_its_configured_brokers_again_goes_on() {
        let all = [
            statistics(5, &[], 0),
            statistics(10, &[("configured", "UP", 0)], 1),
            statistics(15, &[], 0),
            statistics(20, &[("learned", "DOWN", 0)], 0),
        ];
        assert!(!findings(&all).contains(&Finding::Forgotten));
    }

    #[test]
    fn an_answer_that_is_owed_for_two_statistics_is_silence() {
        let owed = |second, answers| statistics(second, &[("learned", "UP", 1)], answers);
        let silent = |seconds| Finding::Silent(Duration::from_secs(seconds));
        assert_eq!(
            findings(&[owed(5, 7), owed(10, 7), owed(15, 7), owed(20, 8), owed(25, 8)]),
            [Finding::Well, silent(5), silent(10), Finding::Well, silent(5)]
        );
    }

    #[test]
    fn no_connection_for_two_statistics_is_silence_whatever_it_is_busy_with() {
        let state = |second, state| statistics(second, &[("learned", state, 0)], 7);
        let all = [state(5, "UP"), state(10, "TRY_CONNECT"), state(15, "CONNECT")];
        assert_eq!(
            findings(&all),
            [Finding::Well, Finding::Well, Finding::Silent(Duration::from_secs(5))]
        );
    }

    #[test]
    fn idleness_is_no_silence() {
        let idle = |second, answers| statistics(second, &[("learned", "UP", 0)], answers);
        let closed = |second, answers| statistics(second, &[("learned", "INIT", 0)], answers);
        // nothing asked and nothing answered, for as long as you like
        assert_eq!(findings(&[idle(5, 7), idle(10, 7), idle(15, 7)]), [Finding::Well; 3]);
        // closed by the broker each time just before the statistics, made again in between
        assert_eq!(
            findings(&[closed(5, 7), closed(10, 8), closed(15, 9)]),
            [Finding::Well; 3]
        );
        // a request that was just sent at both
        let asked = |second, answers| statistics(second, &[("learned", "UP", 1)], answers);
        assert_eq!(findings(&[asked(5, 7), asked(10, 8)]), [Finding::Well; 2]);
    }

    #[test]
    fn statistics_that_come_often_make_no_silence_of_a_moment() {
        let owed = |second| statistics(second, &[("learned", "UP", 1)], 7);
        let four = Finding::Silent(Duration::from_secs(4));
        assert_eq!(
            findings(&[owed(1), owed(2), owed(3), owed(4), owed(5)]),
            [Finding::Well, Finding::Well, Finding::Well, Finding::Well, four]
        );
    }

    #[test]
    fn one_broker_of_three_that_is_silent_is_not_kafka() {
        let all = |second, answers| {
            statistics(
                second,
                &[("learned", "UP", 1), ("learned", "UP", 0), ("learned", "INIT", 0)],
                answers,
            )
        };
        assert_eq!(findings(&[all(5, 7), all(10, 9)]), [Finding::Well; 2]);
    }
}
