use proptest::prelude::*;
use serde_json::json;

use super::*;

const MOMENT: &str = "2025-11-20T22:40:12.123456789Z";

fn minimal() -> Value {
    json!({
        "eventId": "0e4f6a2b-3c1d-4e5f-8a9b-0c1d2e3f4a5b",
        "eventType": INPUT_RECEIVED,
        "eventVersion": 1,
        "occurredAt": MOMENT,
        "payload": {}
    })
}

/// The minimal envelope with one member replaced.
fn with(member: &str, value: Value) -> Vec<u8> {
    let mut envelope = minimal();
    envelope[member] = value;
    envelope.to_string().into_bytes()
}

/// The same, the member written as raw JSON: a float of serde loses digits.
fn with_raw(member: &str, json: &str) -> Vec<u8> {
    let mut envelope = minimal();
    envelope[member] = json!("@@");
    envelope.to_string().replace("\"@@\"", json).into_bytes()
}

fn refused(value: &[u8]) -> EnvelopeError {
    Envelope::decode(value).expect_err("the envelope must be refused")
}

fn text() -> impl Strategy<Value = String> {
    // Every legal string: NUL, quotes, astral characters.
    prop_oneof![any::<String>(), Just("\0".to_owned()), Just("a\0b".to_owned())]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..4).prop_map(|map| Value::from(Map::from_iter(map))),
        ]
    })
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map(text(), value(), 0..4).prop_map(Map::from_iter)
}

fn moment() -> impl Strategy<Value = DateTime<Utc>> {
    let years_1_to_9999 = -62_135_596_800i64..253_402_300_800;
    (years_1_to_9999, 0u32..1_000_000_000)
        .prop_map(|(seconds, nanos)| DateTime::from_timestamp(seconds, nanos).expect("inside chrono's range"))
}

prop_compose! {
    fn envelope()(
        event_id in "[^\\s\0]{1,60}",
        event_type in "[a-z.]{1,30}",
        event_version in 1u32..,
        occurred_at in moment(),
        producer in prop::option::of((text(), prop::option::of(text()))),
        trace in prop::option::of((prop::option::of(text()), prop::option::of(text()), prop::option::of(text()))),
        payload in object(),
        meta in object(),
    ) -> Envelope {
        Envelope {
            event_id, event_type, event_version, occurred_at,
            producer: producer.map(|(service, instance)| Producer { service, instance }),
            trace: trace.map(|(request_id, correlation_id, causation_id)| Trace { request_id, correlation_id, causation_id }),
            payload, meta,
        }
    }
}

proptest! {
    #[test]
    fn what_was_encoded_decodes_to_the_same(envelope in envelope()) {
        prop_assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope));
    }

    #[test]
    fn epoch_seconds_keep_every_nanosecond(moment in moment()) {
        let nanos = i128::from(moment.timestamp()) * 1_000_000_000 + i128::from(moment.timestamp_subsec_nanos());
        let sign = if nanos < 0 { "-" } else { "" };
        let number = format!("{sign}{}.{:09}", nanos.abs() / 1_000_000_000, nanos.abs() % 1_000_000_000);
        let decoded = Envelope::decode(&with_raw("occurredAt", &number));
        prop_assert_eq!(decoded.map(|envelope| envelope.occurred_at), Ok(moment));
    }

    #[test]
    fn an_exponent_moves_the_point(seconds in 0i64..4_000_000_000, nanos in 0i64..1_000_000_000) {
        let all = seconds * 1_000_000_000 + nanos;
        let decoded = Envelope::decode(&with_raw("occurredAt", &format!("{all}E-9"))).expect("is a number");
        prop_assert_eq!(decoded.occurred_at.timestamp_nanos_opt(), Some(all));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = Envelope::decode(&bytes);
    }

    #[test]
    fn no_number_makes_it_panic(number in "-?[0-9]{1,40}(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,12})?") {
        let _ = Envelope::decode(&with_raw("occurredAt", &number));
    }

    #[test]
    fn unknown_members_are_ignored(name in "[a-z]{1,8}X", unknown in value()) {
        prop_assert_eq!(Envelope::decode(&with(&name, unknown)), Envelope::decode(minimal().to_string().as_bytes()));
    }
}

#[test]
fn both_forms_of_a_moment_are_one_moment() {
    let iso = Envelope::decode(&with("occurredAt", json!(MOMENT))).expect("ISO-8601");
    let number = Envelope::decode(&with_raw("occurredAt", "1763678412.123456789")).expect("epoch seconds");
    let offset = Envelope::decode(&with("occurredAt", json!("2025-11-20T23:40:12.123456789+01:00"))).expect("offset");
    assert_eq!(iso.occurred_at, number.occurred_at);
    assert_eq!(iso.occurred_at, offset.occurred_at);
}

#[test]
fn null_means_absent_everywhere() {
    let value = br#"{"eventId":"a","eventType":"t","eventVersion":null,"occurredAt":1,
        "producer":{"service":"triagemate-contracts","instance":null},
        "trace":{"requestId":null,"correlationId":null,"causationId":null},"payload":{"x":null},"meta":null}"#;
    let envelope = Envelope::decode(value).expect("nulls are absent members");
    assert_eq!(envelope.event_version, 1);
    assert_eq!(
        envelope.producer,
        Some(Producer {
            service: "triagemate-contracts".to_owned(),
            instance: None
        })
    );
    assert_eq!(envelope.trace, Some(Trace::default()));
    assert!(envelope.meta.is_empty());

    for member in ["producer", "trace"] {
        let envelope = Envelope::decode(&with(member, Value::Null)).expect("optional");
        assert_eq!((envelope.producer, envelope.trace), (None, None));
    }
    for member in ["eventId", "eventType", "occurredAt", "payload"] {
        assert_eq!(
            refused(&with(member, Value::Null)).to_string(),
            format!("{member}: is missing")
        );
    }
}

#[test]
fn version_0_and_a_missing_version_are_version_1() {
    let mut missing = minimal();
    missing.as_object_mut().expect("an object").remove("eventVersion");
    for value in [
        missing.to_string().into_bytes(),
        with("eventVersion", json!(0)),
        with("eventVersion", json!(1)),
    ] {
        assert_eq!(Envelope::decode(&value).map(|envelope| envelope.event_version), Ok(1));
    }
    assert_eq!(
        Envelope::decode(&with("eventVersion", json!(7))).map(|envelope| envelope.event_version),
        Ok(7)
    );
}

#[test]
fn nul_in_text_survives() {
    let envelope = Envelope::decode(&with("payload", json!({ "text": "a\0b" }))).expect("NUL is legal in JSON");
    assert_eq!(envelope.payload["text"], "a\0b");
    let again = Envelope::decode(&envelope.encode()).expect("what we write, we read");
    assert_eq!(again.payload["text"], "a\0b");
}

#[test]
fn the_last_of_two_members_of_a_name_counts() {
    let value = br#"{"eventId":"first","eventId":"last","eventType":"t","occurredAt":1,"payload":{}}"#;
    assert_eq!(
        Envelope::decode(value).map(|envelope| envelope.event_id),
        Ok("last".to_owned())
    );
}

#[test]
fn an_id_of_255_bytes_is_taken_and_one_more_refused() {
    assert!(Envelope::decode(&with("eventId", json!("x".repeat(255)))).is_ok());
    assert!(Envelope::decode(&with("eventId", json!("\u{e9}".repeat(128)))).is_err());
}

#[test]
fn refusals_name_the_member_and_never_its_value() {
    let secret = "someone@example.org";
    let refusals = [
        b"".to_vec(),
        b"[]".to_vec(),
        b"{\"eventId\":".to_vec(),
        b"\xff\xfe".to_vec(),
        with("eventId", json!(7)),
        with("eventId", json!(" \t")),
        with("eventId", json!("x".repeat(256))),
        with("eventType", json!("")),
        with("eventVersion", json!(secret)),
        with("eventVersion", json!(-1)),
        with("eventVersion", json!(1.5)),
        with("occurredAt", json!(secret)),
        with("occurredAt", json!(true)),
        with_raw("occurredAt", "1e300"),
        with_raw("occurredAt", "253402300800"),
        with("producer", json!(secret)),
        with("trace", json!({ "causationId": 7 })),
        with("payload", json!(secret)),
        with("meta", json!([])),
        with_raw("payload", r#"{"text":"\ud800"}"#),
    ];
    let texts: Vec<_> = refusals.iter().map(|value| refused(value).to_string()).collect();
    assert!(texts.iter().all(|text| !text.contains(secret)));
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn the_decision_we_emit() {
    let decision = DecisionMade {
        decision_id: "019a9b2f-5c00-7abc-8def-0123456789ab".to_owned(),
        input_id: "input-1".to_owned(),
        priority: "P1".to_owned(),
        categories: vec!["general".to_owned()],
        summary: "accepted by default".to_owned(),
        suggested_actions: vec!["route-to-team".to_owned()],
        motivation: Motivation {
            kind: MotivationType::Rules,
            reasons: vec!["RULE_DEFAULT_ACCEPT".to_owned()],
        },
    };
    let meta = json!({
        "decisionId": "019a9b2f-5c00-7abc-8def-0123456789ab",
        "decisionOutcome": "ACCEPT",
        "sourceEventId": "0e4f6a2b-3c1d-4e5f-8a9b-0c1d2e3f4a5b",
        "policyVersion": "2025-11-20"
    });
    let envelope = Envelope {
        event_id: "019a9b2f-5c00-7def-8abc-0123456789ab".to_owned(),
        event_type: DECISION_MADE.to_owned(),
        event_version: 1,
        occurred_at: DateTime::parse_from_rfc3339(MOMENT).expect("a moment").to_utc(),
        producer: Some(Producer {
            service: "triage-service".to_owned(),
            instance: None,
        }),
        trace: Some(Trace {
            causation_id: Some("0e4f6a2b-3c1d-4e5f-8a9b-0c1d2e3f4a5b".to_owned()),
            ..Trace::default()
        }),
        payload: decision.into_payload(),
        meta: meta.as_object().expect("an object").clone(),
    };
    let text = String::from_utf8(envelope.encode()).expect("JSON is UTF-8");
    insta::assert_snapshot!(text);
}

#[test]
fn moments_are_written_as_java_prints_them() {
    let written = |number: &str| {
        let envelope = Envelope::decode(&with_raw("occurredAt", number)).expect("a number");
        serde_json::from_slice::<Value>(&envelope.encode()).expect("JSON")["occurredAt"].clone()
    };
    assert_eq!(written("1763678412"), "2025-11-20T22:40:12Z");
    assert_eq!(written("1763678412.5"), "2025-11-20T22:40:12.500Z");
    assert_eq!(written("1763678412.000001"), "2025-11-20T22:40:12.000001Z");
    assert_eq!(written("1763678412.1234567899"), "2025-11-20T22:40:12.123456789Z");
}

mod input_received {
    use super::*;

    fn payload() -> Map<String, Value> {
        let json = json!({
            "inputId": "input-1", "channel": "email", "subject": "Urgent", "text": "help\0", "from": "a@example.org",
            "receivedAtEpochMs": 1_763_678_412_000i64
        });
        json.as_object().expect("an object").clone()
    }

    fn refused(member: &str, value: Value) -> String {
        let mut payload = payload();
        payload.insert(member.to_owned(), value);
        InputReceived::from_payload(&payload, None)
            .expect_err("must be refused")
            .to_string()
    }

    #[test]
    fn a_whole_payload_is_read() {
        let input = InputReceived::from_payload(&payload(), None).expect("whole");
        assert_eq!((input.input_id.as_str(), input.text.as_str()), ("input-1", "help\0"));
        assert_eq!(input.received_at_epoch_ms, 1_763_678_412_000);
        assert_eq!(serde_json::to_value(&input).expect("JSON"), Value::from(payload()));
    }

    #[test]
    fn an_absent_moment_is_taken_from_the_record() {
        for absent in [None, Some(Value::Null)] {
            let mut payload = payload();
            payload.remove("receivedAtEpochMs");
            payload.extend(absent.map(|null| ("receivedAtEpochMs".to_owned(), null)));
            assert_eq!(
                InputReceived::from_payload(&payload, Some(7)).map(|input| input.received_at_epoch_ms),
                Ok(7)
            );
        }
    }

    #[test]
    fn refusals_name_the_member() {
        let texts = [
            refused("inputId", Value::Null),
            refused("inputId", json!("  ")),
            refused("channel", Value::Null),
            refused("text", Value::Null),
            refused("text", json!(7)),
            refused("subject", json!([])),
            refused("receivedAtEpochMs", json!("1763678412000")),
            refused("receivedAtEpochMs", Value::Null),
        ];
        insta::assert_snapshot!(texts.join("\n"));
    }
}
