//! The settings of the tool: those of the services that it looks at, under its own prefix.

use serde::{Deserialize, Serialize};
use shared::config::{DatabaseSettings, HttpSettings, KafkaSettings, Problems, Settings as SettingsTrait};
use shared::kafka::Role;

/// All settings. Keys mean what they mean for the triage service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which topics.
    pub topics: TopicSettings,
    /// The cluster and the triage service's consumer group.
    pub kafka: KafkaSettings,
    /// Postgres: the primary. A login of the role `claimfirst_reader` will do.
    pub database: DatabaseSettings,
    /// Under which name events are claimed.
    pub intake: IntakeSettings,
    /// How long the triage service keeps what.
    pub retention: RetentionSettings,
    /// Known to every binary of ours; nothing here listens.
    pub http: HttpSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            topics: TopicSettings::default(),
            kafka: KafkaSettings::in_group("triage-service"),
            database: DatabaseSettings::default(),
            intake: IntakeSettings::default(),
            retention: RetentionSettings::default(),
            http: HttpSettings::default(),
        }
    }
}

/// `topics`: where events come from and go to. Other output topics are taken from the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicSettings {
    /// Inputs to be decided.
    pub input: String,
    /// Outcomes.
    pub output: String,
    /// Records that were set aside; `<input>.dlt` when absent.
    pub dead_letter: Option<String>,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            input: "triagemate.ingest.input-received.v1".to_owned(),
            output: "triagemate.triage.decision-made.v1".to_owned(),
            dead_letter: None,
        }
    }
}

impl TopicSettings {
    /// The dead-letter topic.
    pub fn dead_letter(&self) -> String {
        self.dead_letter
            .clone()
            .unwrap_or_else(|| format!("{}.dlt", self.input))
    }
}

/// `intake`: the triage service's name among the claims.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IntakeSettings {
    /// Name under which events are claimed; the group's when absent.
    pub consumer: Option<String>,
}

/// `retention`: what may be missing because it was kept long enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSettings {
    /// Days that a claim is kept, as the triage service has it.
    pub claims_days: u32,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self { claims_days: 30 }
    }
}

impl SettingsTrait for Settings {
    const PREFIX: &'static str = "CLAIMFIRST__";

    fn check(&self, problems: &mut Problems) {
        self.kafka.check(&[Role::Consumer, Role::Admin], problems);
        self.database.check(problems);
        self.http.check(problems);
        if self.topics.input.trim().is_empty() {
            problems.add("topics.input", "must not be blank");
        }
        if self.topics.output == self.topics.input || self.topics.dead_letter() == self.topics.input {
            problems.add("topics.input", "must differ from topics.output and topics.dead_letter");
        }
        if !(1..=36_500).contains(&self.retention.claims_days) {
            problems.add("retention.claims_days", "must be from 1 to 36500");
        }
    }
}

impl Settings {
    /// The name under which events are claimed.
    pub fn consumer(&self) -> &str {
        let group = self.kafka.group.as_deref().unwrap_or_default(); // has a default, and is checked not to be blank
        self.intake.consumer.as_deref().unwrap_or(group)
    }
}

#[cfg(test)]
mod tests {
    use shared::config::load_from;

    use super::*;

    fn load(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let loaded = load_from::<Settings>(None, variables);
        loaded
            .map(|loaded| loaded.settings)
            .map_err(|errors| errors.to_string())
    }

    const DATABASE: (&str, &str) = ("CLAIMFIRST__DATABASE__URL", "postgres://me@h/d");

    #[test]
    fn the_names_of_the_contract_are_known() {
        let settings = load(&[
            DATABASE,
            ("CLAIMFIRST__KAFKA__BROKERS", "a:1,b:2"),
            ("CLAIMFIRST__KAFKA__GROUP", "g"),
            ("CLAIMFIRST__KAFKA__PROPERTIES__CLIENT_ID", "ana"),
            ("CLAIMFIRST__TOPICS__INPUT", "in"),
            ("CLAIMFIRST__TOPICS__OUTPUT", "out"),
            ("CLAIMFIRST__HTTP__LISTEN", "127.0.0.1:0"),
            ("CLAIMFIRST__DATABASE__MIGRATE", "false"),
        ])
        .expect("they are known");
        assert_eq!(
            (settings.consumer(), settings.topics.dead_letter().as_str()),
            ("g", "in.dlt")
        );
    }

    #[test]
    fn the_consumer_may_have_another_name_than_the_group() {
        let settings = load(&[DATABASE, ("CLAIMFIRST__INTAKE__CONSUMER", "old-name")]).expect("it may");
        assert_eq!(settings.consumer(), "old-name");
    }

    #[test]
    fn every_mistake_names_its_setting() {
        let refused = load(&[
            ("CLAIMFIRST__RETENTION__CLAIMS_DAYS", "0"),
            ("CLAIMFIRST__TOPICS__INPUT", " "),
        ]);
        let text = refused.expect_err("three mistakes");
        for key in ["database.url", "retention.claims_days", "topics.input"] {
            assert!(text.contains(key), "{text}");
        }
    }
}
