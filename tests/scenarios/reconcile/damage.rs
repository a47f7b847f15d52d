//! One thing deleted, added, changed or moved, and what it is called.

use anyhow::Context;
use harness::{Ability, Record, Stack, topics};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::{reconcile, stream, system, system_of};
use crate::triage::scene::{Scene, event};

/// Something done to the tables.
struct Damage {
    what: &'static str,
    done: &'static str,
    /// The codes that must come of it, and how many of each.
    expected: &'static [(&'static str, u64)],
    undone: &'static str,
}

const fn damage(
    what: &'static str,
    done: &'static str,
    expected: &'static [(&'static str, u64)],
    undone: &'static str,
) -> Damage {
    Damage {
        what,
        done,
        expected,
        undone,
    }
}

/// `victim` is one event that was decided and published; the tables `spared_...` keep what is taken away.
const DAMAGES: [Damage; 11] = [
    damage(
        "a row deleted",
        "insert into spared_row select e.* from outbox_events e join victim v on v.row_id = e.id; \
         delete from outbox_events e using victim v where v.row_id = e.id",
        &[("claim-without-outcome", 1), ("record-without-row", 1)],
        "insert into outbox_events select * from spared_row",
    ),
    damage(
        "a byte changed",
        "update outbox_events e set payload = set_byte(payload, 9, get_byte(payload, 9) # 1) from victim v where v.row_id = e.id",
        &[("payload-differs", 1)],
        "update outbox_events e set payload = set_byte(payload, 9, get_byte(payload, 9) # 1) from victim v where v.row_id = e.id",
    ),
    damage(
        "a key changed",
        "update outbox_events e set key = key || 'x' from victim v where v.row_id = e.id",
        &[("key-differs", 1)],
        "update outbox_events e set key = substr(key, 1, octet_length(key) - 1) from victim v where v.row_id = e.id",
    ),
    damage(
        "a claim removed",
        "insert into spared_claim select p.* from processed_events p join victim v using (event_id); \
         delete from processed_events p using victim v where v.event_id = p.event_id",
        &[("offset-past-unclaimed", 1), ("decision-without-claim", 1)],
        "insert into processed_events select * from spared_claim",
    ),
    damage(
        "a decision removed",
        "insert into spared_decision select d.* from decisions d join victim v using (event_id); \
         delete from decisions d using victim v where v.event_id = d.event_id",
        &[("claim-without-decision", 1)],
        "insert into decisions select * from spared_decision",
    ),
    damage(
        "a second decision",
        "insert into decisions select (jsonb_populate_record(s, '{\"decision_id\": \"00000000-0000-4000-8000-000000000001\"}')).* \
           from spared_decision s",
        &[("decided-twice", 1)],
        "delete from decisions where decision_id = '00000000-0000-4000-8000-000000000001'",
    ),
    damage(
        "a second outcome",
        "insert into outbox_events select (jsonb_populate_record(s, jsonb_build_object('id', nextval('outbox_events_id_seq')))).* \
           from spared_row s",
        &[("outcome-twice", 1)],
        "delete from outbox_events e using victim v, spared_row s where e.event_id = s.event_id and e.id <> s.id",
    ),
    damage(
        "a dead letter's row deleted",
        "delete from spared_row; \
         insert into spared_row select * from outbox_events where event_type = 'dead-letter' order by id limit 1; \
         delete from outbox_events e using spared_row s where s.id = e.id",
        &[("claim-without-dead-letter", 1), ("record-without-row", 1)],
        "insert into outbox_events select * from spared_row",
    ),
    damage(
        "a dead letter that is not its record",
        "update outbox_events e set payload = coalesce(e.payload, '') || 'x' from spared_row s where s.id = e.id",
        &[("dead-letter-differs", 1), ("payload-differs", 1)],
        "update outbox_events e set payload = s.payload from spared_row s where s.id = e.id",
    ),
    damage(
        "a row written down as published that never was",
        "select outbox_enqueue((select min(topic) from outbox_events where event_type <> 'dead-letter'), 'k', 'order', 'p'); \
         update outbox_events set status = 'PUBLISHED', published_at = now() where event_type = 'order'",
        &[("published-without-record", 1)],
        "delete from outbox_events where event_type = 'order'",
    ),
    damage(
        "a lease of nobody",
        "update outbox_leases set lock_owner = gen_random_uuid(), locked_until = now() + interval '1 hour' where bucket = 7",
        &[("lease-of-nobody", 1)],
        "update outbox_leases set lock_owner = null, locked_until = '-infinity' where bucket = 7",
    ),
];

pub(super) const VICTIM: &str = "create table victim as \
      select p.event_id, e.id as row_id from processed_events p join outbox_events e \
          on e.source_topic_id = p.topic_id and e.source_partition = p.kafka_partition and e.source_offset = p.kafka_offset \
       where e.key = 'victim'; \
     create table spared_row (like outbox_events); \
     create table spared_claim (like processed_events); \
     create table spared_decision (like decisions)";

#[tokio::test]
async fn damaged_tables_are_named() -> anyhow::Result<()> {
    // given
    let mut records = stream(600);
    // Of no event of the stream is it known how often it comes again, and each of its records would lack its claim.
    records.insert(300, event(Uuid::new_v4(), "victim", "it does not work"));
    let (scene, _) = system_of("recon-tables", records).await?;
    scene.run(VICTIM).await?;
    for Damage {
        what,
        done,
        expected,
        undone,
    } in DAMAGES
    {
        // when
        scene.run(done).await.context(what)?;
        let said = reconcile(&scene, &[]).await.context(what)?;
        scene.run(undone).await.context(what)?;

        // then
        eprintln!("{what}: {:?}", said.of_class("wrong"));
        said.expect_wrong(expected);
        for (code, _) in expected {
            assert_eq!(said.examples(code).len(), 1, "{what} {code}: {:#}", said.report);
        }
    }
    reconcile(&scene, &[]).await?.expect_clean();
    scene.stack.drop_database(&scene.database).await
}

#[tokio::test]
async fn records_that_no_row_has_are_named_by_their_place() -> anyhow::Result<()> {
    // given
    let (scene, _) = system("recon-records", 100).await?;
    let output = &scene.triage.output;

    // when: somebody else writes to the topic, once as we would and once without headers
    let mut alike = Record::new("k", "{}");
    let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
    alike.headers = vec![
        header("event-id", "0e4f6a2b-3c1d-4e5f-8a9b-0c1d2e3f4a5b"),
        header("outbox-id", "1000000"),
    ];
    let written = topics::produce(&scene.brokers, output, vec![alike, Record::new("k", "{}")]).await?;
    let said = reconcile(&scene, &[]).await?;

    // then
    said.expect_wrong(&[("record-without-row", 2)]);
    let examples = said.examples("record-without-row");
    for ((partition, offset), example) in written.iter().zip(&examples) {
        assert_eq!(example["topic"], output.as_str());
        assert_eq!(
            (example["partition"].as_i64(), example["offset"].as_i64()),
            (Some((*partition).into()), Some(*offset))
        );
    }
    assert_eq!(examples[0]["event_id"], "0e4f6a2b-3c1d-4e5f-8a9b-0c1d2e3f4a5b");
    assert_eq!(examples[1]["note"], "without an event-id");
    scene.stack.drop_database(&scene.database).await
}

#[tokio::test]
async fn records_of_other_producers_are_counted_and_none_of_ours_among_them() -> anyhow::Result<()> {
    // given
    let (scene, _) = system("recon-foreign", 100).await?;
    let output = &scene.triage.output;
    let published = reconcile(&scene, &[]).await?.report["published"].clone();
    let reads = topics::read_all(&scene.brokers, output).await?;
    let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
    let with = |headers| Record {
        headers,
        ..Record::new("k", "{}")
    };
    let ours = Record {
        key: reads[0].key.clone(),
        value: reads[0].value.clone(),
        ..Record::default()
    };
    let mut changed = ours.clone();
    changed.value.as_mut().context("an outcome has a value")?.push(b' ');
    let theirs = vec![
        Record::new("k", "{}"),
        Record {
            value: None,
            ..Record::new("k", "")
        },
        with(vec![header("event-id", &Uuid::new_v4().to_string())]),
        with(vec![
            header("event-id", "order 17"),
            header("content-type", "text/plain"),
        ]),
    ];
    let damaged = vec![
        ours,    // without its headers
        changed, // and with other bytes, in which its event id stands
        with(vec![header("outbox-id", "\0")]),
        with(vec![header("event-id", "0e4f6a2b"), ("outbox-epoch".to_owned(), None)]),
        with(vec![
            header("event-id", &Uuid::new_v4().to_string()),
            header("Outbox-Id", "7"),
        ]),
    ];

    // when
    topics::produce(&scene.brokers, output, theirs).await?;
    let unasked = reconcile(&scene, &[]).await?;
    let asked = reconcile(&scene, &["--foreign-records"]).await?;
    topics::produce(&scene.brokers, output, damaged).await?;
    let with_damage = reconcile(&scene, &["--foreign-records"]).await?;

    // then
    unasked.expect_wrong(&[("record-without-row", 4)]);
    asked.expect_clean();
    assert_eq!(
        asked.of_class("apart").get("foreign-record"),
        Some(&4),
        "{:#}",
        asked.report
    );
    assert_eq!(asked.report["published"], published);
    with_damage.expect_wrong(&[("record-without-row", 5)]);
    assert_eq!(with_damage.of_class("apart").get("foreign-record"), Some(&4));
    scene.stack.drop_database(&scene.database).await
}

#[tokio::test]
async fn a_changed_record_and_a_repeated_one_are_told_from_each_other() -> anyhow::Result<()> {
    // given
    let (scene, _) = system("recon-changed", 100).await?;
    let output = &scene.triage.output;
    let reads = topics::read_all(&scene.brokers, output).await?;
    let again = |n: usize| Record {
        key: reads[n].key.clone(),
        value: reads[n].value.clone(),
        headers: reads[n].headers.clone(),
        partition: Some(reads[n].partition),
        ..Record::default()
    };

    // when: one record stands there again, byte for byte, and another one with one byte changed
    let mut changed = again(5);
    if let Some(value) = &mut changed.value {
        value[9] ^= 1;
    }
    let written = topics::produce(&scene.brokers, output, vec![again(3), changed]).await?;
    let said = reconcile(&scene, &[]).await?;

    // then
    said.expect_wrong(&[("payload-differs", 1)]);
    assert_eq!(said.examples("payload-differs")[0]["offset"], written[1].1);
    assert_eq!(
        said.of_class("apart").get("published-again"),
        Some(&2),
        "{:#}",
        said.report
    );
    assert_eq!(said.report["publish_duplicates"], 2);
    scene.stack.drop_database(&scene.database).await
}

#[tokio::test]
async fn an_offset_pushed_forward_is_found() -> anyhow::Result<()> {
    if Stack::shared().await?.skips("recon-offset", &[Ability::GivenOffsets]) {
        return Ok(());
    }
    // given: records that nobody has read yet
    let (scene, _) = system("recon-offset", 100).await?;
    let sent = scene.send(stream(60)).await?;
    let before = scene.committed().await?;
    reconcile(&scene, &[]).await?.expect_clean();

    // when: the group is put to the end of each partition, and then beyond one
    let ends: Vec<_> = before.iter().map(|at| (at.partition, at.high)).collect();
    commit(&scene, ends.clone()).await?;
    let passed = reconcile(&scene, &[]).await?;
    let beyond: Vec<_> = ends
        .iter()
        .map(|&(partition, high)| (partition, high + i64::from(partition == 0)))
        .collect();
    commit(&scene, beyond).await?;
    let past_end = reconcile(&scene, &["--partition", "0", "--topic", scene.input()]).await?;

    // then: duplicates of claimed events are passed rightly
    let unclaimed = passed.of_class("wrong")["offset-past-unclaimed"];
    assert!(unclaimed > 40 && unclaimed <= sent.len() as u64, "{:#}", passed.report);
    passed.expect_wrong(&[("offset-past-unclaimed", unclaimed)]);
    assert_eq!(
        past_end.of_class("wrong").get("offset-past-end"),
        Some(&1),
        "{:#}",
        past_end.report
    );
    scene.stack.drop_database(&scene.database).await
}

/// Sets the group's offsets, as kafka-consumer-groups.sh does.
pub(crate) async fn commit(scene: &Scene, offsets: Vec<(i32, i64)>) -> anyhow::Result<()> {
    let (brokers, group, topic) = (
        scene.brokers.clone(),
        scene.triage.group.clone(),
        scene.input().to_owned(),
    );
    tokio::task::spawn_blocking(move || {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("group.id", &group)
            .create()?;
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(&topic, partition, Offset::Offset(offset))?;
        }
        client
            .commit(&list, CommitMode::Sync)
            .context("set the group's offsets")
    })
    .await?
}
