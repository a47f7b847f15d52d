use std::sync::Arc;

use serde_json::json;
use shared::config::{Settings as _, load_from};
use shared::headers::Headers;

use super::*;
use crate::domain::case::Reading;
use crate::domain::decision::Outcome;
use crate::domain::record::{Coordinates, Record};

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let url = [("TRIAGE__DATABASE__URL", "postgres://localhost/triage")];
    url.iter()
        .chain(pairs)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn problems(pairs: &[(&str, &str)]) -> Vec<String> {
    match load_from::<Settings>(None, environment(pairs)) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.problems().map(|problem| problem.key.clone()).collect(),
    }
}

#[test]
fn defaults_need_only_a_database() {
    assert_eq!(problems(&[]), Vec::<String>::new());
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let found = problems(&[
        ("TRIAGE__TOPICS__INPUT", "no topic!"),
        ("TRIAGE__INTAKE__WORKERS", "0"),
        ("TRIAGE__INTAKE__REVOKE_TIMEOUT_MS", "300000"),
        ("TRIAGE__KAFKA__PROPERTIES__ENABLE_AUTO_COMMIT", "false"),
    ]);
    for key in [
        "topics.input",
        "intake.workers",
        "intake.revoke_timeout_ms",
        "kafka.properties.enable.auto.commit",
    ] {
        assert!(found.iter().any(|found| found == key), "{key} in {found:?}");
    }
}

#[test]
fn static_membership_and_the_new_group_protocol_are_refused_together() {
    let kip_848 = ("TRIAGE__KAFKA__PROPERTIES__GROUP_PROTOCOL", "consumer");
    let fixed_member = ("TRIAGE__KAFKA__PROPERTIES__GROUP_INSTANCE_ID", "triage-1");
    assert_eq!(problems(&[kip_848]), Vec::<String>::new());
    assert_eq!(problems(&[fixed_member]), Vec::<String>::new());
    assert_eq!(
        problems(&[kip_848, fixed_member]),
        ["kafka.properties.group.instance.id"]
    );
}

#[test]
fn the_dead_letter_topic_is_named_after_the_input() {
    assert_eq!(
        TopicSettings::default().dead_letter(),
        "triagemate.ingest.input-received.v1.dlt"
    );
    let named = TopicSettings {
        dead_letter: Some("dead".to_owned()),
        ..TopicSettings::default()
    };
    assert_eq!(named.dead_letter(), "dead");
}

fn decide(
    settings: &PolicySettings,
    channel: &str,
    subject: Option<&str>,
    text: &str,
) -> (Outcome, &'static str, String) {
    let value = json!({
        "eventId": "a", "eventType": INPUT_RECEIVED, "occurredAt": 1,
        "payload": {"inputId": "i", "channel": channel, "subject": subject, "text": text},
    });
    let record = Record {
        at: Coordinates {
            topic: Arc::from("in"),
            partition: 0,
            offset: 0,
        },
        timestamp_ms: Some(0),
        key: None,
        value: Some(value.to_string().into_bytes()),
        headers: Headers::new(),
    };
    let case = Reading::of(&record, &Accepted::default()).case.expect("a valid input");
    let ruling = settings.policies().decide(&case).expect("no policy fails").ruling;
    (ruling.outcome, ruling.reason_code.name(), ruling.rule)
}

#[test]
fn the_default_is_the_sample_policy() {
    let (accept, reject) = (Outcome::Accept, Outcome::Reject);
    let (default, denied) = ("ACCEPTED_BY_DEFAULT", "POLICY_REJECTED");
    let table = [
        ("web", None, "All is well", accept, default, "RULE_DEFAULT_ACCEPT"),
        ("web", None, "An ERROR came up", reject, denied, "RULE_ERROR_KEYWORDS"),
        ("web", None, "it failed", reject, denied, "RULE_ERROR_KEYWORDS"),
        ("chat", None, "BroKen again", reject, denied, "RULE_ERROR_KEYWORDS"),
        ("chat", None, "It is Not Working", reject, denied, "RULE_ERROR_KEYWORDS"),
        (
            "email",
            Some("URGENT: read"),
            "hello",
            reject,
            denied,
            "RULE_URGENT_EMAIL",
        ),
        (
            "Email",
            Some("asap please"),
            "hello",
            reject,
            denied,
            "RULE_URGENT_EMAIL",
        ),
        (
            "email",
            Some("immediately"),
            "hello",
            reject,
            denied,
            "RULE_URGENT_EMAIL",
        ),
        ("web", Some("urgent"), "hello", accept, default, "RULE_DEFAULT_ACCEPT"),
        ("email", None, "urgent", accept, default, "RULE_DEFAULT_ACCEPT"),
        ("web", None, "Maybe it is fine", accept, default, "RULE_WEAK_SIGNAL"),
        ("web", None, "I am not sure", accept, default, "RULE_WEAK_SIGNAL"),
        ("web", None, "my first day", accept, default, "RULE_WEAK_SIGNAL"),
        ("web", None, "maybe broken", reject, denied, "RULE_ERROR_KEYWORDS"),
        ("email", Some("urgent"), "maybe", reject, denied, "RULE_URGENT_EMAIL"),
    ];
    for (channel, subject, text, outcome, code, rule) in table {
        let decided = decide(&PolicySettings::default(), channel, subject, text);
        assert_eq!(
            decided,
            (outcome, code, rule.to_owned()),
            "{channel} {subject:?} {text}"
        );
    }
}

#[test]
fn what_costs_too_much_is_rejected_before_any_rule_is_asked() {
    let cost = CostSettings {
        estimated_tokens_max: 10,
        ..CostSettings::default()
    };
    let settings = PolicySettings {
        cost,
        ..PolicySettings::default()
    };
    let decided = decide(&settings, "web", None, &"word ".repeat(100));
    assert_eq!(
        decided,
        (Outcome::Reject, "COST_LIMIT_EXCEEDED", "RULE_COST_GUARD".to_owned())
    );
}

#[test]
fn rules_come_from_a_file() {
    let file = tempfile_with(
        r#"
        [policy]
        version = "mine-1"
        [[policy.rules]]
        id = "RULE_VIP"
        effect = "defer"
        priority = "P0"
        any_of = [{ field = "from", equals = ["Boss@example.com"] }]
        "#,
    );
    let loaded = load_from::<Settings>(Some(&file), environment(&[])).expect("a good file");
    std::fs::remove_file(&file).expect("it was just written");
    let [rule] = &loaded.settings.policy.rules[..] else {
        panic!("{:?}", loaded.settings.policy)
    };
    assert_eq!((rule.id.as_str(), rule.ruling().outcome), ("RULE_VIP", Outcome::Defer));
    assert_eq!(Settings::PREFIX, "TRIAGE__");
}

fn tempfile_with(text: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("triage-config-{}.toml", std::process::id()));
    std::fs::write(&path, text).expect("the folder for temporary files is writable");
    path
}
