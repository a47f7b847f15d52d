//! What is set aside, how it looks, and how it comes back.

use harness::stack::unique;
use harness::{Ability, Read, Record, topics};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use super::scene::{
    CURE, DECISIONS, POISON, SET_ASIDE, SOON, Scene, event, events, metric, start, until_metric, until_not_ready,
};

/// The headers that say why, in their order.
const OURS: [&str; 10] = [
    "dlt-topic",
    "dlt-partition",
    "dlt-offset",
    "dlt-timestamp",
    "dlt-reason",
    "dlt-message",
    "dlt-group",
    "dlt-attempts",
    "dlt-first-failure-at",
    "dlt-last-failure-at",
];

#[tokio::test]
async fn a_dead_letter_is_its_record_byte_for_byte() -> anyhow::Result<()> {
    // given: records that nobody can decide, in every form that Kafka allows
    let scene = Scene::new("byte_for_byte", 2).await?;
    let bytes = |bytes: &[u8]| Some(bytes.to_vec());
    let own = vec![
        (
            "traceparent".to_owned(),
            bytes(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ),
        ("empty".to_owned(), bytes(b"")),
        ("null".to_owned(), None),
        ("bytes".to_owned(), bytes(b"\xff\x00\xfe")),
        ("empty".to_owned(), bytes(b"again")),
        ("dlt-reason".to_owned(), bytes(b"from an earlier life")),
    ];
    let long_id = "x".repeat(256);
    let cases: Vec<(Record, &str)> = vec![
        (
            Record {
                value: None,
                ..Record::new("key", "")
            },
            "TOMBSTONE",
        ),
        (
            Record {
                key: None,
                value: None,
                ..Record::default()
            },
            "TOMBSTONE",
        ),
        (
            Record {
                key: None,
                ..Record::new("", "no JSON")
            },
            "UNDECODABLE",
        ),
        (Record::new("", ""), "UNDECODABLE"),
        (
            Record::new(b"\xff\x00\xfe".as_slice(), b"\x00\xff\xfe not UTF-8".as_slice()),
            "UNDECODABLE",
        ),
        (
            Record {
                headers: own,
                ..Record::new("key", "[]")
            },
            "UNDECODABLE",
        ),
        (
            Record::new("key", event("", "key", "text").value.unwrap_or_default()),
            "MISSING_ID",
        ),
        (event(long_id, "key", "text"), "MISSING_ID"),
        (
            Record {
                timestamp: Some(1_700_000_000_123),
                ..Record::new("key", "{")
            },
            "UNDECODABLE",
        ),
    ];
    let places = scene
        .send(cases.iter().map(|(record, _)| record.clone()).collect())
        .await?;

    // when
    let service = scene.start("triage").await?;
    scene.until_passed().await?;
    let letters = scene.dead_letters().await?;

    // then
    assert_eq!(letters.len(), cases.len());
    for ((record, reason), place) in cases.iter().zip(places) {
        let letter = letter_of(&letters, place);
        assert_eq!((&letter.key, &letter.value), (&record.key, &record.value), "{reason}");
        let (before, rest) = letter.headers.split_at(record.headers.len());
        assert_eq!(
            before, record.headers,
            "the record's own headers come first, as they were"
        );
        let names: Vec<&str> = rest.iter().map(|(name, _)| name.as_str()).take(OURS.len()).collect();
        assert_eq!(names, OURS);
        let text = |name: &str| last(letter, name);
        assert_eq!(text("dlt-reason"), *reason);
        assert_eq!(text("dlt-topic"), scene.input());
        assert_eq!(text("dlt-group"), scene.triage.group);
        assert_eq!(text("dlt-attempts"), "1");
        if let Some(timestamp) = record.timestamp {
            assert_eq!(text("dlt-timestamp"), timestamp.to_string());
        }
    }
    assert_eq!(metric(&service, "triage_dead_letters_total").await?, 9);
    scene.end(vec![service]).await?;
    Ok(())
}

#[tokio::test]
async fn a_dead_letter_put_back_is_decided_once() -> anyhow::Result<()> {
    // given: two events that were set aside, for a cause that is gone now
    let scene = Scene::new("put_back", 1).await?;
    scene.run(POISON).await?;
    let (put_back, corrected) = (Uuid::new_v4(), Uuid::new_v4());
    let records = vec![
        event(put_back, "customer-1", "poison"),
        event(corrected, "customer-2", "poison"),
        event(Uuid::new_v4(), "customer-1", "good"),
    ];
    scene.send(records).await?;
    let service = scene.start("triage").await?;
    scene.until_passed().await?;
    assert_eq!((scene.number(DECISIONS).await?, scene.number(SET_ASIDE).await?), (1, 2));
    let letters = scene.dead_letters().await?;
    scene.run(CURE).await?;

    // when: one comes back as it is, headers and all, the other one as its producer has corrected it; both twice
    let letter = letter_of(&letters, (0, 0));
    let again = Record {
        key: letter.key.clone(),
        value: letter.value.clone(),
        headers: letter.headers.clone(),
        ..Record::default()
    };
    let resent = event(corrected, "customer-2", "good");
    scene.send(vec![again.clone(), resent.clone()]).await?;
    scene.until_passed().await?;
    scene.send(vec![again, resent]).await?;
    scene.until_passed().await?;

    // then
    assert_eq!((scene.number(DECISIONS).await?, scene.number(SET_ASIDE).await?), (3, 0));
    assert_eq!(metric(&service, "triage_duplicates_total").await?, 2);
    assert_eq!(metric(&service, "triage_payload_mismatches_total").await?, 0);
    assert_eq!(metric(&service, "triage_dead_letters_total").await?, 2);
    scene.end(vec![service]).await?;
    Ok(())
}

#[tokio::test]
async fn a_dead_letter_put_back_too_early_is_set_aside_again_and_waits() -> anyhow::Result<()> {
    // given: an event that was set aside, whose cause is still there
    let scene = Scene::new("too_early", 1).await?;
    scene.run(POISON).await?;
    let record = event(Uuid::new_v4(), "customer-1", "poison");
    scene.send(vec![record.clone()]).await?;
    let service = scene.start("triage").await?;
    scene.until_passed().await?;

    // when: it comes back before and after the cure
    scene.send(vec![record.clone()]).await?;
    scene.until_passed().await?;
    let before = (scene.number(DECISIONS).await?, scene.number(SET_ASIDE).await?);
    scene.run(CURE).await?;
    scene.send(vec![record]).await?;
    scene.until_passed().await?;

    // then
    assert_eq!(before, (0, 1));
    assert_eq!((scene.number(DECISIONS).await?, scene.number(SET_ASIDE).await?), (1, 0));
    assert_eq!(
        scene.dead_letters().await?.len(),
        2,
        "each record that was set aside has its own dead letter"
    );
    scene.end(vec![service]).await?;
    Ok(())
}

#[tokio::test]
async fn a_policy_that_panics_sets_aside_its_event_only() -> anyhow::Result<()> {
    // given: a policy that panics over one text, in the binary that is released
    let scene = Scene::new("panics", 2).await?;
    let text = "a text that no log shall show";
    let service = start(&scene.service("triage").set("POLICY__DRILL_PANIC_TEXT", text)).await?;
    let mut records = events(50, 5);
    records[20] = event(Uuid::new_v4(), "customer-0", text);
    records[30] = event(Uuid::new_v4(), "customer-0", text);

    // when
    scene.send(records).await?;
    until_metric(&service, "triage_decisions_total", 48).await?;
    scene.until_passed().await?;

    // then
    assert_eq!(
        (scene.number(DECISIONS).await?, scene.number(SET_ASIDE).await?),
        (48, 2)
    );
    assert_eq!(
        metric(&service, r#"triage_dead_letters_total{reason="POLICY_PANIC"}"#).await?,
        2
    );
    assert_eq!(
        metric(&service, r#"triage_attempts_total{result="unavailable"}"#).await?,
        0
    );
    assert!(service.has_logged("panicked at")?);
    assert!(!service.has_logged(text)?, "a payload is in the log");
    service.ready(SOON).await?;
    scene.end(vec![service]).await?;
    Ok(())
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_stored_is_waited_for_and_passes_nothing() -> anyhow::Result<()> {
    // given: a record that Postgres refuses to decide, and whose dead letter it refuses too
    let scene = Scene::new("refused_twice", 1).await?;
    scene.run(POISON).await?;
    scene
        .run(
            "create function refuse() returns trigger language plpgsql as \
             $$ begin raise exception 'a data error' using errcode = '22023'; end $$; \
             create trigger refuse before insert on outbox_events_000000000000 for each row \
             when (new.event_type = 'dead-letter') execute function refuse()",
        )
        .await?;
    let service = scene.start("triage").await?;
    let records = vec![
        event(Uuid::new_v4(), "customer-1", "good"),
        event(Uuid::new_v4(), "customer-1", "poison"),
        event(Uuid::new_v4(), "customer-1", "good"),
    ];
    scene.send(records).await?;

    // when: it has been tried again and again
    until_metric(&service, r#"triage_attempts_total{result="data_error"}"#, 8).await?;

    // then: its own trouble is no longer the event's, and nothing behind it has overtaken it
    scene.until(DECISIONS, |count| count == 1).await?;
    assert_eq!(scene.number(SET_ASIDE).await?, 0);
    let offset = scene.committed().await?[0].offset;
    assert!(offset.is_none_or(|offset| offset <= 1), "{offset:?}");

    // when: the cause is gone
    scene.run("drop trigger refuse on outbox_events_000000000000").await?;

    // then
    scene.until_passed().await?;
    assert_eq!((scene.number(DECISIONS).await?, scene.number(SET_ASIDE).await?), (2, 1));
    assert_eq!(scene.dead_letters().await?.len(), 1);
    scene.end(vec![service]).await?;
    Ok(())
}

#[tokio::test]
async fn a_record_as_large_as_the_input_takes_has_room_for_its_dead_letter() -> anyhow::Result<()> {
    // given: a dead-letter topic that the service makes, and a record that fills the input's limit
    let mut scene = Scene::new("largest", 1).await?;
    if scene.stack.skips("largest", &[Ability::Admin]) {
        return Ok(());
    }
    scene.triage.dead_letter = unique("largest-dlt").replace('_', "-");
    let service = start(&scene.service("triage").set("KAFKA__CREATE_TOPICS", true)).await?;
    let mut random = StdRng::seed_from_u64(1);
    let value: Vec<u8> = (0..1_048_450).map(|_| random.random()).collect(); // no compression makes room
    let largest = Record {
        key: None,
        ..Record::new("", value)
    };

    // when
    scene.send(vec![largest.clone()]).await?;
    scene.until_passed().await?;

    // then: the publisher gets it there, larger by its headers as it is
    let letters = scene.dead_letters().await?;
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0].key, &letters[0].value), (&largest.key, &largest.value));
    scene.end(vec![service]).await?;
    Ok(())
}

#[tokio::test]
async fn readiness_says_that_the_dead_letter_topic_has_no_room() -> anyhow::Result<()> {
    // given: it takes no more than the input does
    let scene = Scene::new("no_room", 1).await?;
    let dead_letter = &scene.triage.dead_letter;
    topics::alter(&scene.brokers, dead_letter, &[("max.message.bytes", "1048588")]).await?;

    // when
    let service = scene.service("cramped").start().await?;

    // then
    until_not_ready(
        &service,
        "takes records of at most 1048588 bytes, a dead letter may need 1114124",
    )
    .await?;
    scene.send(events(10, 3)).await?;
    scene.until(DECISIONS, |count| count == 10).await?;
    topics::alter(&scene.brokers, dead_letter, &[("max.message.bytes", "1114124")]).await?;
    service.ready(SOON).await?;
    scene.end(vec![service]).await?;
    Ok(())
}

/// The dead letter of the record at a place.
fn letter_of(letters: &[Read], (partition, offset): (i32, i64)) -> &Read {
    let is_of = |letter: &&Read| {
        last(letter, "dlt-partition") == partition.to_string() && last(letter, "dlt-offset") == offset.to_string()
    };
    letters.iter().find(is_of).expect("each record has its dead letter")
}

/// The last header of a name: ours stands behind the record's own.
fn last(letter: &Read, name: &str) -> String {
    let found = letter.headers.iter().rev().find(|(other, _)| other == name);
    let value = found.and_then(|(_, value)| value.clone()).unwrap_or_default();
    String::from_utf8(value).expect("our headers are text")
}
