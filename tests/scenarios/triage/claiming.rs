//! One event, however often and however it comes.

use harness::Record;
use serde_json::json;
use uuid::Uuid;

use super::scene::{self, CLAIMS, DECISIONS, POISON, SET_ASIDE, Scene, event, events, metric, start, until_metric};

#[tokio::test]
async fn a_duplicate_in_its_batch_and_in_a_later_one_yields_one_decision() -> anyhow::Result<()> {
    // given: three of one event and one of another in front of the service, so that they are one batch
    let scene = Scene::new("duplicates", 1).await?;
    let twice = event(Uuid::new_v4(), "customer-1", "once is enough");
    let once = event(Uuid::new_v4(), "customer-1", "another");
    scene
        .send(vec![twice.clone(), twice.clone(), once, twice.clone()])
        .await?;

    // when
    let service = scene.start("triage").await?;
    scene.until_passed().await?;
    let in_the_batch = metric(&service, "triage_duplicates_total").await?;
    scene.send(vec![twice]).await?;
    scene.until_passed().await?;

    // then
    assert_eq!(in_the_batch, 2);
    assert_eq!(metric(&service, "triage_duplicates_total").await?, 3);
    assert_eq!(metric(&service, "triage_payload_mismatches_total").await?, 0);
    assert_eq!(scene.number(DECISIONS).await?, 2);
    scene.end(vec![service]).await?;
    Ok(())
}

#[tokio::test]
async fn another_body_under_a_decided_id_is_counted_and_logged_and_nothing_else() -> anyhow::Result<()> {
    // given: a decided event, and two resends of it with another body, one of them beside a duplicate
    let scene = Scene::new("resends", 1).await?;
    let id = Uuid::new_v4();
    let decided = event(id, "customer-1", "the first body");
    let other = event(id, "customer-1", "a body that nobody shall decide");
    let first = scene.send(vec![decided.clone()]).await?[0];
    let service = scene.start("triage").await?;
    scene.until_passed().await?;

    // when
    let resent = scene.send(vec![other.clone(), decided, other]).await?;
    scene.until_passed().await?;

    // then
    assert_eq!(metric(&service, "triage_payload_mismatches_total").await?, 2);
    assert_eq!(metric(&service, "triage_duplicates_total").await?, 3);
    for place in [resent[0], resent[2]] {
        let (record, decided) = (scene.place(place), scene.place(first));
        let line = format!("record {record} repeats event {id} with another body; decided was {decided}");
        assert!(service.has_logged(&line)?, "{line}");
    }
    assert!(!service.has_logged("nobody shall decide")?, "a payload is in the log");
    assert_eq!((scene.number(DECISIONS).await?, scene.number(SET_ASIDE).await?), (1, 0));
    scene.end(vec![service]).await?;
    Ok(())
}

#[tokio::test]
async fn consumers_decide_for_themselves_and_groups_of_one_consumer_share() -> anyhow::Result<()> {
    // given: a consumer, another one, and another group that keeps the first one's name
    let scene = Scene::new("consumers", 2).await?;
    let renamed = harness::Triage {
        group: format!("{}-renamed", scene.triage.group),
        ..scene.triage.clone()
    };
    let other = harness::Triage {
        consumer: format!("{}-other", scene.triage.group),
        group: format!("{}-other", scene.triage.group),
        output: scene.stack.topic("consumers-other", 2, &[]).await?,
        ..scene.triage.clone()
    };
    scene.send(events(40, 5)).await?;
    let first = scene.start("first").await?;
    scene.until_passed().await?;

    // when
    let second = scene
        .service("second")
        .set("KAFKA__GROUP", &other.group)
        .set("TOPICS__OUTPUT", &other.output);
    let second = start(&second).await?;
    let third = scene
        .service("third")
        .set("KAFKA__GROUP", &renamed.group)
        .set("INTAKE__CONSUMER", &renamed.consumer);
    let third = start(&third).await?;
    until_metric(&second, "triage_decisions_total", 40).await?;
    until_metric(&third, "triage_duplicates_total", 40).await?;

    // then
    assert_eq!(metric(&third, "triage_decisions_total").await?, 0);
    assert_eq!((scene.number(CLAIMS).await?, scene.number(DECISIONS).await?), (80, 80));
    scene::drain(vec![first, second, third]).await?;
    scene.publish().await?;
    scene.judge(&other).await?;
    scene.judge(&renamed).await?;
    scene.end(vec![]).await?;
    Ok(())
}

#[tokio::test]
async fn a_broken_record_does_not_swallow_its_good_successor() -> anyhow::Result<()> {
    // given: of one id each, one after the other and in one batch, something broken and then a good one
    let scene = Scene::new("broken_first", 1).await?;
    let (cut, incomplete, refused) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    scene.run(POISON).await?;
    let mut without_text = scene::envelope(incomplete, "customer-2", "");
    without_text["payload"] = json!({"inputId": "customer-2", "channel": "chat"});
    let records = vec![
        Record::new("customer-1", format!(r#"{{"eventId":"{cut}","eventType":"#)),
        event(cut, "customer-1", "good"),
        Record::new("customer-2", without_text.to_string()),
        event(incomplete, "customer-2", "good"),
        event(refused, "customer-3", "poison"),
        event(refused, "customer-3", "good"),
    ];
    scene.send(records).await?;

    // when
    let service = scene.start("triage").await?;
    scene.until_passed().await?;

    // then: the good ones are decided; only the record without an id that could be read keeps its claim
    assert_eq!(scene.number(DECISIONS).await?, 3);
    assert_eq!((scene.number(CLAIMS).await?, scene.number(SET_ASIDE).await?), (4, 1));
    assert_eq!(metric(&service, "triage_dead_letters_total").await?, 3);
    assert_eq!(metric(&service, "triage_payload_mismatches_total").await?, 0);
    scene.end(vec![service]).await?;
    Ok(())
}

#[tokio::test]
async fn a_data_error_sets_aside_the_guilty_records_only() -> anyhow::Result<()> {
    // given: three guilty records among sixty of one batch and one key, beside one that fails without Postgres
    let scene = Scene::new("bisection", 1).await?;
    scene.run(POISON).await?;
    let mut records = events(60, 4);
    for guilty in [0, 31, 59] {
        records[guilty] = event(Uuid::new_v4(), "customer-1", "poison");
    }
    records[40].value = None;
    scene.send(records).await?;

    // when
    let service = scene.start("triage").await?;
    scene.until_passed().await?;

    // then
    assert_eq!(
        (scene.number(DECISIONS).await?, scene.number(SET_ASIDE).await?),
        (56, 4)
    );
    assert_eq!(
        metric(&service, r#"triage_dead_letters_total{reason="DATA_ERROR"}"#).await?,
        3
    );
    assert_eq!(metric(&service, "triage_duplicates_total").await?, 0);
    scene.end(vec![service]).await?;
    Ok(())
}

#[tokio::test]
async fn what_others_write_is_read_as_they_mean_it() -> anyhow::Result<()> {
    // given: forms that TriageMate's producers write, and what they must not be mistaken for
    let scene = Scene::new("forms", 1).await?;
    let key = "customer-1";
    let form = |member: &str, value: serde_json::Value| {
        let mut envelope = scene::envelope(Uuid::new_v4(), key, "good");
        envelope[member] = value;
        Record::new(key, envelope.to_string())
    };
    let decided = vec![
        event(Uuid::new_v4(), key, "a NUL \0 in the text"),
        event("no UUID at all", key, "good"),
        form("occurredAt", json!(1_763_678_412.5)),
        Record::new(
            key,
            scene::envelope(Uuid::new_v4(), key, "good")
                .to_string()
                .replace(r#""2026-01-15T08:30:00.123Z""#, "1763678412.123456789"),
        ),
        form("eventVersion", json!(null)),
        form("producer", json!({"service": "triagemate-contracts", "instance": null})),
        form("somethingNew", json!({"is": ["kept"]})),
        Record {
            key: None,
            ..event(Uuid::new_v4(), key, "good")
        },
    ];
    let refused = vec![
        form("eventType", json!("triagemate.billing.invoice-sent")),
        form("eventVersion", json!(2)),
        form("eventVersion", json!("one")),
        form("payload", json!({})),
    ];
    let (decided_count, refused_count) = (decided.len() as i64, refused.len() as i64);

    // when
    scene.send([decided, refused].concat()).await?;
    let service = scene.start("triage").await?;
    scene.until_passed().await?;

    // then
    assert_eq!(scene.number(DECISIONS).await?, decided_count);
    assert_eq!(scene.number(SET_ASIDE).await?, refused_count);
    assert_eq!(
        metric(&service, r#"triage_dead_letters_total{reason="UNSUPPORTED_TYPE"}"#).await?,
        2
    );
    assert_eq!(
        metric(&service, r#"triage_dead_letters_total{reason="UNDECODABLE"}"#).await?,
        1
    );
    assert_eq!(
        metric(&service, r#"triage_dead_letters_total{reason="VALIDATION_FAILED"}"#).await?,
        1
    );
    scene.end(vec![service]).await?;
    Ok(())
}
