use super::*;
use crate::config::{Problems, Properties, SaslMechanism, SaslSettings, Secret, TlsSettings};

fn with(properties: &[(&str, &str)]) -> KafkaSettings {
    KafkaSettings {
        properties: Properties::from_iter(properties.iter().copied()),
        ..KafkaSettings::in_group("group")
    }
}

fn problems(settings: &KafkaSettings, roles: &[Role]) -> Vec<String> {
    let mut problems = Problems::default();
    settings.check(roles, &mut problems);
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn what_the_guarantees_forbid_is_refused_with_the_reason() {
    let properties = [
        ("acks", "1"),
        ("auto.offset.reset", "latest"),
        ("bootstrap.servers", "elsewhere:9092"),
        ("delivery.timeout.ms", "1000"),
        ("enable.auto.commit", "true"),
        ("enable.auto.offset.store", "true"),
        ("enable.gapless.guarantee", "false"),
        ("enable.idempotence", "false"),
        ("group.id", "other"),
        ("linger.ms", "50"),
        ("max.in.flight", "6"),
        ("message.timeout.ms", "1000"),
        ("partitioner", "random"),
        ("retries", "0"),
        ("transactional.id", "mine"),
    ];
    insta::assert_snapshot!(problems(&with(&properties), &[Role::Consumer, Role::Producer]).join("\n"));
}

#[test]
fn a_role_is_not_bothered_with_the_rules_of_another() {
    assert_eq!(
        problems(&with(&[("acks", "1")]), &[Role::Consumer]),
        Vec::<String>::new()
    );
    assert_eq!(
        problems(&with(&[("enable.auto.commit", "true")]), &[Role::Producer]),
        Vec::<String>::new()
    );
    assert_eq!(
        problems(&with(&[("auto.offset.reset", "error")]), &[Role::Consumer]),
        Vec::<String>::new()
    );
    assert_eq!(
        problems(&with(&[("max.in.flight", "1")]), &[Role::Producer]),
        Vec::<String>::new()
    );
}

#[test]
fn static_membership_and_kip_848_exclude_each_other() {
    let pair = with(&[
        ("group.protocol", "consumer"),
        ("group.instance.id", "a"),
        ("session.timeout.ms", "6000"),
    ]);
    assert_eq!(problems(&pair, &[Role::Consumer]).len(), 2);
    assert!(problems(&with(&[("group.instance.id", "a")]), &[Role::Consumer]).is_empty());
}

#[test]
fn kip_848_leaves_the_classic_settings_to_the_broker() {
    let classic = client_config(&with(&[]), Role::Consumer);
    assert_eq!(classic.get("partition.assignment.strategy"), Some("cooperative-sticky"));
    let kip_848 = client_config(&with(&[("group.protocol", "consumer")]), Role::Consumer);
    for name in forbidden::CLASSIC_GROUP_ONLY {
        assert_eq!(kip_848.get(name), None, "{name}");
    }
}

#[test]
fn properties_override_defaults_and_never_what_the_guarantees_stand_on() {
    let settings = with(&[("linger.ms", "50"), ("acks", "1"), ("enable.auto.offset.store", "true")]);
    let producer = client_config(&settings, Role::Producer);
    assert_eq!(producer.get("linger.ms"), Some("50"));
    assert_eq!(producer.get("acks"), Some("all"));
    let consumer = client_config(&settings, Role::Consumer);
    assert_eq!(consumer.get("enable.auto.offset.store"), Some("false"));
    assert_eq!(consumer.get("group.id"), Some("group"));
}

#[test]
fn what_order_and_delivery_stand_on_is_set_for_each_role() {
    let producer = client_config(&with(&[]), Role::Producer);
    for (name, value) in [
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("message.timeout.ms", "0"),
        ("enable.gapless.guarantee", "true"),
    ] {
        assert_eq!(producer.get(name), Some(value), "{name}");
    }
    let consumer = client_config(&with(&[]), Role::Consumer);
    assert_eq!(consumer.get("enable.auto.offset.store"), Some("false"));
    assert_eq!(consumer.get("auto.offset.reset"), Some("earliest"));
}

#[test]
fn librdkafka_takes_the_settings_of_each_role() {
    for properties in [&[][..], &[("group.protocol", "consumer")]] {
        for role in [Role::Consumer, Role::Producer, Role::Admin] {
            let config = client_config(&with(properties), role);
            config
                .create_native_config()
                .expect("every property is known and every value legal");
        }
    }
}

#[test]
fn encryption_and_identity_choose_the_protocol() {
    let sasl = SaslSettings {
        mechanism: Some(SaslMechanism::ScramSha512),
        username: "me".to_owned(),
        password: Secret::new("hunter2"),
    };
    let tls = TlsSettings {
        enabled: true,
        ..TlsSettings::default()
    };
    let protocol = |settings: &KafkaSettings| {
        let config = client_config(settings, Role::Producer);
        config.create_native_config().expect("legal");
        config.get("security.protocol").map(str::to_owned)
    };
    let plain = with(&[]);
    assert_eq!(protocol(&plain), None);
    assert_eq!(
        protocol(&KafkaSettings {
            tls: tls.clone(),
            ..plain.clone()
        })
        .as_deref(),
        Some("ssl")
    );
    assert_eq!(
        protocol(&KafkaSettings {
            sasl: sasl.clone(),
            ..plain.clone()
        })
        .as_deref(),
        Some("sasl_plaintext")
    );
    assert_eq!(
        protocol(&KafkaSettings { sasl, tls, ..plain }).as_deref(),
        Some("sasl_ssl")
    );
}

#[test]
fn half_of_a_pair_is_refused() {
    let settings = KafkaSettings {
        tls: TlsSettings {
            enabled: true,
            certificate_file: Some("/nowhere/cert.pem".into()),
            ..TlsSettings::default()
        },
        sasl: SaslSettings {
            mechanism: Some(SaslMechanism::Plain),
            ..SaslSettings::default()
        },
        ..with(&[("sasl.username", "other"), ("security.protocol", "plaintext")])
    };
    insta::assert_snapshot!(problems(&settings, &[Role::Producer]).join("\n"));
}

#[tokio::test]
async fn missing_topics_are_named() {
    let cluster = rdkafka::mocking::MockCluster::new(1).expect("the mock cluster starts");
    cluster.create_topic("there", 2, 1).expect("the mock makes topics");
    let settings = KafkaSettings {
        brokers: cluster.bootstrap_servers(),
        ..KafkaSettings::default()
    };
    let spec = |name: &str| TopicSpec::new(name, &settings);
    ensure_topics(&settings, &[spec("there")]).await.expect("it is there");
    let missing = ensure_topics(&settings, &[spec("there"), spec("gone"), spec("lost")]).await;
    assert_eq!(
        missing.expect_err("two are missing").to_string(),
        "missing topics: gone, lost"
    );
}
