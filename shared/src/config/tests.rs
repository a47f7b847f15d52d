use std::fs;

use serde::{Deserialize, Serialize};

use super::*;
use crate::kafka::Role;

/// Settings of a binary that consumes and produces.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Example {
    kafka: KafkaSettings,
    database: DatabaseSettings,
    http: HttpSettings,
    telemetry: TelemetrySettings,
    lease: Lease,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Lease {
    duration_ms: u64,
    renew_ms: u64,
    topics: Vec<String>,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            duration_ms: 30_000,
            renew_ms: 5_000,
            topics: Vec::new(),
        }
    }
}

impl Default for Example {
    fn default() -> Self {
        Self {
            kafka: KafkaSettings::in_group("example"),
            database: DatabaseSettings::default(),
            http: HttpSettings::default(),
            telemetry: TelemetrySettings::default(),
            lease: Lease::default(),
        }
    }
}

impl Settings for Example {
    const PREFIX: &'static str = "EXAMPLE__";

    fn check(&self, problems: &mut Problems) {
        self.kafka.check(&[Role::Consumer, Role::Producer], problems);
        self.database.check(problems);
        self.http.check(problems);
        self.telemetry.check(problems);
        if self.lease.duration_ms < 3 * self.lease.renew_ms {
            problems.add("lease.duration_ms", "must outlast three renewals (lease.renew_ms)");
        }
    }
}

const URL: (&str, &str) = ("EXAMPLE__DATABASE__URL", "postgres://triage:hunter2@db/triage");

fn load_with(file: Option<&str>, variables: &[(&str, &str)]) -> Result<Loaded<Example>, ConfigErrors> {
    let folder = std::env::temp_dir().join(format!("config-{}", uuid::Uuid::new_v4()));
    fs::create_dir(&folder).expect("the temporary folder is writable");
    let path = folder.join("settings.toml");
    fs::write(&path, file.unwrap_or_default()).expect("the temporary folder is writable");
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let loaded = load_from(file.map(|_| path.as_path()), variables);
    fs::remove_dir_all(&folder).expect("the folder is ours");
    loaded
}

/// What is wrong, without the random part of the file's path.
fn refused(file: Option<&str>, variables: &[(&str, &str)]) -> String {
    let errors = load_with(file, variables).expect_err("must be refused").to_string();
    let mut text = String::new();
    let mut rest = errors.as_str();
    while let Some(at) = rest.find(std::env::temp_dir().to_str().expect("a plain path")) {
        let end = rest[at..]
            .find("settings.toml")
            .expect("the path ends in the file's name");
        text.push_str(&rest[..at]);
        rest = &rest[at + end..];
    }
    text + rest
}

#[test]
fn the_environment_beats_the_file_and_the_file_beats_the_default() {
    let file = "[kafka]\nbrokers = \"file:9092\"\npartitions = 3\n[http]\nlisten = \"127.0.0.1:1\"";
    let variables = [
        URL,
        ("EXAMPLE__KAFKA__BROKERS", "env:9092"),
        ("OTHER__KAFKA__BROKERS", "other:9092"),
    ];
    let loaded = load_with(Some(file), &variables).expect("valid");
    assert_eq!(loaded.settings.kafka.brokers, "env:9092");
    assert_eq!(loaded.settings.kafka.partitions, 3);
    assert_eq!(loaded.settings.kafka.replication, 1);

    let origin = |key: &str| {
        loaded
            .origins
            .get(&key.split('.').map(str::to_owned).collect::<Vec<_>>())
    };
    assert_eq!(
        origin("kafka.brokers"),
        Some(&Origin::Env("EXAMPLE__KAFKA__BROKERS".to_owned()))
    );
    assert!(matches!(origin("kafka.partitions"), Some(Origin::File(_))));
    assert_eq!(origin("kafka.replication"), None);
}

#[test]
fn values_of_the_environment_have_the_type_of_their_key() {
    let variables = [
        ("EXAMPLE__DATABASE__URL", "postgres://localhost/0123"),
        ("EXAMPLE__DATABASE__MIGRATE", "false"),
        ("EXAMPLE__KAFKA__PARTITIONS", "12"),
        ("EXAMPLE__KAFKA__GROUP", "007"),
        ("EXAMPLE__KAFKA__SASL__MECHANISM", "SCRAM-SHA-256"),
        ("EXAMPLE__KAFKA__SASL__USERNAME", "true"),
        ("EXAMPLE__KAFKA__SASL__PASSWORD", "0123"),
        ("EXAMPLE__LEASE__TOPICS", "[a, b]"),
        ("EXAMPLE__TELEMETRY__SERVICE_INSTANCE", "7"),
        ("EXAMPLE__TELEMETRY__SAMPLE_RATIO", "1"),
    ];
    let settings = load_with(None, &variables).expect("valid").settings;
    assert!(!settings.database.migrate);
    assert_eq!(settings.kafka.partitions, 12);
    assert_eq!(settings.kafka.group.as_deref(), Some("007"));
    assert_eq!(settings.kafka.sasl.username, "true");
    assert_eq!(settings.kafka.sasl.password.expose(), "0123");
    assert_eq!(settings.lease.topics, ["a", "b"]);
    assert_eq!(settings.telemetry.service_instance.as_deref(), Some("7"));
}

#[test]
fn properties_are_named_with_dots_in_files_and_without_in_the_environment() {
    let file = "[kafka.properties]\nlinger.ms = 7\n\"batch.size\" = \"1000\"\ncheck.crcs = true";
    let variables = [
        URL,
        ("EXAMPLE__KAFKA__PROPERTIES__LINGER_MS", "9"),
        ("EXAMPLE__KAFKA__PROPERTIES__CLIENT.ID", "me"),
    ];
    let settings = load_with(Some(file), &variables).expect("valid").settings;
    let expected = [
        ("batch.size", "1000"),
        ("check.crcs", "true"),
        ("client.id", "me"),
        ("linger.ms", "9"),
    ];
    assert_eq!(settings.kafka.properties, Properties::from_iter(expected));
}

#[test]
fn every_mistake_is_reported_at_once() {
    let file = "[kafka]\nbroker = \"typo:9092\"\npartitions = \"many\"\nreplication = 0\n\
                [lease]\nduration_ms = 10000\n[http]\nlisten = \"nowhere\"\n[unheard]\nof = 1";
    let variables = [
        ("EXAMPLE__DATABSE__URL", "postgres://u:hunter2@db/x"),
        ("EXAMPLE__DATABASE__MIGRATE", "maybe"),
        ("EXAMPLE__TELEMETRY__LOG_FORMAT", "xml"),
        ("EXAMPLE__KAFKA__PROPERTIES__ACKS", "1"),
        ("EXAMPLE__KAFKA__PROPERTIES__ENABLE_AUTO_COMMIT", "true"),
        ("EXAMPLE__KAFKA", "here:9092"),
    ];
    let text = refused(Some(file), &variables);
    assert!(!text.contains("hunter2"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn an_unknown_key_names_its_nearest_neighbour() {
    let unknown = |name| {
        let errors = load_with(None, &[URL, (name, "1")]).expect_err("must be refused");
        errors
            .problems()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    insta::assert_snapshot!(
        [
            unknown("EXAMPLE__KAFKA__BROKER"),
            unknown("EXAMPLE__BROKERS"),
            unknown("EXAMPLE__KAFKA__TLS__ENABLE"),
            unknown("EXAMPLE__KAFKA__BROKERS__FIRST"),
            unknown("EXAMPLE__SOMETHING__ELSE"),
            unknown("EXAMPLE__"),
        ]
        .join("\n")
    );
}

#[test]
fn a_key_of_another_binary_is_unknown() {
    assert!(!defaults_name_group(&KafkaSettings::default()));
    assert!(defaults_name_group(&KafkaSettings::in_group("example")));
}

fn defaults_name_group(kafka: &KafkaSettings) -> bool {
    layers::defaults(kafka).contains_key("group")
}

#[test]
fn rules_between_settings_are_checked() {
    let text = refused(None, &[URL, ("EXAMPLE__LEASE__RENEW_MS", "20000")]);
    assert!(
        text.contains("lease.duration_ms: must outlast three renewals"),
        "{text}"
    );
}

#[test]
fn secrets_cannot_be_printed() {
    let file = "[database]\nmigrate_url = \"postgres://owner:hunter2@db/triage?sslpassword=hunter2&application_name=x\"\n\
                [kafka.sasl]\nmechanism = \"PLAIN\"\nusername = \"me\"\npassword = \"hunter2\"\n\
                [kafka.tls]\nkey_password = \"hunter2\"\n[kafka.properties]\nssl.keystore.password = \"hunter2\"";
    let loaded = load_with(Some(file), &[URL]).expect("valid");
    assert_eq!(loaded.settings.database.url.expose(), URL.1);
    let json = serde_json::to_string(&loaded.settings).expect("settings serialise");
    for text in [
        loaded.describe(),
        format!("{loaded:?}"),
        json,
        loaded.settings.database.url.to_string(),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("***"), "{text}");
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_not_printed_either() {
    let broken_toml = "[database]\nurl = \"postgres://u:hunter2@db/x\n";
    let wrong_type = "[kafka]\npartitions = \"hunter2\"\n[lease]\nrenew_ms = [\"hunter2\"]";
    let wrong_url = [
        ("EXAMPLE__DATABASE__URL", "hunter2"),
        ("EXAMPLE__DATABASE__MIGRATE_URL", "mysql://u:hunter2@db"),
    ];
    for text in [
        refused(Some(broken_toml), &[URL]),
        refused(Some(wrong_type), &[URL]),
        refused(None, &wrong_url),
        refused(None, &[URL, ("EXAMPLE__DATABASE", "postgres://u:hunter2@db/x")]),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    for url in [
        "postgres://u:hunter2@db?x",
        "postgres://u:p@hunter2@db/x",
        "postgres://u:p?hunter2@db/x",
        "hunter2",
    ] {
        let shown = DatabaseUrl::from(url).to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn the_description_names_every_key_with_its_origin() {
    let variables = [
        ("EXAMPLE__DATABASE__URL", "postgres://triage:hunter2@db/triage"),
        ("EXAMPLE__KAFKA__PROPERTIES__LINGER_MS", "9"),
        ("EXAMPLE__KAFKA__PROPERTIES__SSL_KEYSTORE_PASSWORD", "hunter2"),
    ];
    insta::assert_snapshot!(load_with(None, &variables).expect("valid").describe());
}

#[test]
fn a_missing_file_is_a_mistake_of_its_own() {
    let errors = load_from::<Example>(Some(Path::new("/nowhere/settings.toml")), []).expect_err("must be refused");
    insta::assert_snapshot!(errors);
}
