//! What the stream is set with: variables that begin with `LOAD__`.

use serde::{Deserialize, Serialize};
use shared::config::{Problems, Settings};

/// Everything that can be set.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// `host:port` of some brokers, separated by commas.
    pub(crate) brokers: String,
    /// Where the records go; the topic must exist.
    pub(crate) topic: String,
    /// Records a second.
    pub(crate) rate: u64,
    /// How long, in seconds; 0 is until it is stopped.
    pub(crate) seconds: u64,
    /// How often it says how far it is, in seconds.
    pub(crate) report_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            topic: "triagemate.ingest.input-received.v1".to_owned(),
            rate: 50,
            seconds: 0,
            report_seconds: 10,
        }
    }
}

impl Settings for Config {
    const PREFIX: &'static str = "LOAD__";

    fn check(&self, problems: &mut Problems) {
        if self.brokers.is_empty() {
            problems.add("brokers", "must name a broker: host:port");
        }
        if self.topic.is_empty() {
            problems.add("topic", "must name a topic");
        }
        for (key, value, most) in [
            ("rate", self.rate, 1_000_000),
            ("report_seconds", self.report_seconds, 86_400),
        ] {
            if !(1..=most).contains(&value) {
                problems.add(key, format!("must be from 1 to {most}"));
            }
        }
        if self.seconds > 31_536_000 {
            problems.add("seconds", "must be at most a year, 31536000");
        }
    }
}
