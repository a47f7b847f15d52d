//! What docs/guarantees.md does not promise, happening: so that nobody takes it for promised, and so that a change which
//! brings it under the promise is noticed.
//!
//! Frames of a dead producer that arrive behind newer ones are in [`crate::publisher`]; a database that is older than
//! Kafka in [`crate::reconcile`].

use std::collections::{BTreeMap, BTreeSet};

use harness::children::Signal;
use harness::wait::{self, Seen};
use harness::{Ability, Stack, topics};
use shared::outbox::NewEvent;

use crate::publisher::refusals::{LARGE, SMALL_LIMIT, noise};
use crate::publisher::{DRAINED, Outbox, SOON, event, ids_on};
use crate::reconcile::damage::commit;
use crate::reconcile::remedies::decide;
use crate::reconcile::{reconcile, stream, system};
use crate::triage::scene::{DECISIONS, Scene, drain, events, start};

#[tokio::test]
async fn a_topic_made_again_has_none_of_what_was_acknowledged() -> anyhow::Result<()> {
    if Stack::shared().await?.skips("limits-remade", &[Ability::Admin]) {
        return Ok(());
    }
    // given
    let (scene, verdict) = system("limits-remade", 200).await?;
    let output = &scene.triage.output;
    let published = topics::read_all(&scene.brokers, output).await?.len() as u64;
    assert!(published > 100 && published < verdict.published);

    // when
    topics::delete(&scene.brokers, output).await?;
    made_again(&scene.brokers, output, 3).await?;
    let said = reconcile(&scene, &[]).await?;
    let service = scene.start("decides-more").await?;
    scene.send(stream(50)).await?;
    scene.until_passed().await?;
    drain(vec![service]).await?;
    scene.publish().await?;
    let later = reconcile(&scene, &[]).await?;

    // then: it is lost there, reconcile says so, and what comes later is published
    said.expect_wrong(&[("published-without-record", published)]);
    later.expect_wrong(&[("published-without-record", published)]);
    assert!(topics::read_all(&scene.brokers, output).await?.len() > 25);
    scene.stack.drop_database(&scene.database).await
}

#[tokio::test]
async fn an_input_made_again_is_read_from_its_beginning_where_nothing_was_under_way() -> anyhow::Result<()> {
    if Stack::shared().await?.skips("limits-input", &[Ability::Admin]) {
        return Ok(());
    }
    // given: Kafka forgets a group's offsets of a topic that is deleted; ours are committed, so that none comes later
    let scene = Scene::new("limits-input", 1).await?;
    let service = scene.start("triage").await?;
    scene.send(events(100, 5)).await?;
    scene.until_passed().await?;

    // when
    topics::delete(&scene.brokers, scene.input()).await?;
    made_again(&scene.brokers, scene.input(), 1).await?;
    scene.send(events(150, 5)).await?;

    // then
    scene.until(DECISIONS, |count| count == 250).await?;
    drain(vec![service]).await?;
    scene.publish().await?;
    reconcile(&scene, &[]).await?.expect_clean();
    scene.stack.drop_database(&scene.database).await
}

/// The case that is not covered: an offset that was under way when its topic was made again.
#[tokio::test]
async fn an_offset_under_way_skips_as_many_records_of_an_input_made_again() -> anyhow::Result<()> {
    if Stack::shared()
        .await?
        .skips("limits-skipped", &[Ability::Admin, Ability::GivenOffsets])
    {
        return Ok(());
    }
    // given: a hundred records are decided, and their offset is not committed yet
    let scene = Scene::new("limits-skipped", 1).await?;
    let service = scene
        .service("triage")
        .set("KAFKA__PROPERTIES__AUTO_COMMIT_INTERVAL_MS", 30_000)
        .set("KAFKA__PROPERTIES__SESSION_TIMEOUT_MS", 45_000);
    let service = start(&service).await?;
    scene.send(events(100, 5)).await?;
    scene.until(DECISIONS, |count| count == 100).await?;
    assert_eq!(scene.committed().await?[0].offset, None);

    // when: the service stands still while the topic is deleted and made again; it is told to drain, and commits then
    // what it had read, for a topic that has other records there
    service.freeze()?;
    topics::delete(&scene.brokers, scene.input()).await?;
    made_again(&scene.brokers, scene.input(), 1).await?;
    scene.send(events(150, 5)).await?;
    service.signal(Signal::Terminate)?;
    service.thaw()?;
    assert_eq!(service.wait(SOON).await?, 0);
    assert_eq!(scene.committed().await?[0].offset, Some(100));
    decide(&scene).await?;
    let skipped = reconcile(&scene, &["--examples", "1000"]).await?;

    // then: reconcile names each record that was passed over, and the way back that it prints decides them
    skipped.expect_wrong(&[("offset-past-unclaimed", 100)]);
    assert_eq!(scene.number(DECISIONS).await?, 150);
    let lowest = skipped
        .examples("offset-past-unclaimed")
        .iter()
        .filter_map(|at| at["offset"].as_i64())
        .min();
    assert_eq!(lowest, Some(0));
    commit(&scene, vec![(0, 0)]).await?;
    decide(&scene).await?;
    assert_eq!(scene.number(DECISIONS).await?, 250);
    reconcile(&scene, &[]).await?.expect_clean();
    scene.stack.drop_database(&scene.database).await
}

#[tokio::test]
async fn a_key_goes_to_another_partition_when_some_are_added() -> anyhow::Result<()> {
    if Stack::shared().await?.skips("limits-partitions", &[Ability::Admin]) {
        return Ok(());
    }
    // given
    let outbox = Outbox::shared("limits-partitions").await?;
    let topic = outbox.topic("limits-partitions", 1, &[]).await?;
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let publisher = outbox.publisher("publisher").set("RETRY__TOPIC_REFRESH_SECONDS", 1);
    let publisher = publisher.start().await?;
    outbox.write_rounds(&topic, &keys, 3).await?;
    outbox.until_nothing_waits().await?;

    // when
    topics::add_partitions(&outbox.brokers, &topic, 8).await?;
    let reads = wait::until("records on a new partition", SOON, || async {
        outbox.write_rounds(&topic, &keys, 1).await?;
        outbox.until_nothing_waits().await?;
        let reads = topics::read_all(&outbox.brokers, &topic).await?;
        Ok(Seen::when(reads, |reads| reads.iter().any(|read| read.partition > 0)))
    })
    .await?;

    // then: nothing is lost, and who reads the partitions side by side has no order of such a key
    let mut partitions: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for read in &reads {
        partitions.entry(read.key.clone()).or_default().insert(read.partition);
    }
    assert!(partitions.values().any(|of_key| of_key.len() == 2), "{partitions:?}");
    assert_eq!(publisher.terminate(DRAINED).await?, 0);
    let verdict = outbox.audit().run().await?;
    assert_eq!((verdict.lost, verdict.publish_duplicates), (0, 0), "{verdict:#?}");
    assert!(verdict.order_violations > 0, "{verdict:#?}");
    Ok(())
}

#[tokio::test]
async fn a_row_put_back_comes_behind_those_that_did_not_wait_for_it() -> anyhow::Result<()> {
    if Stack::shared().await?.skips("limits-redriven", &[Ability::Admin]) {
        return Ok(());
    }
    // given: followers go on without the row that was set aside
    let outbox = Outbox::shared("limits-redriven").await?;
    let topic = outbox.topic("limits-redriven", 1, SMALL_LIMIT).await?;
    let publisher = outbox.publisher("publisher").set("RETRY__AFTER_FAILED", "continue");
    let publisher = publisher.set("RETRY__TOPIC_REFRESH_SECONDS", 1).start().await?;
    let large = NewEvent::new(topic.as_str(), "test.happened", noise(LARGE)).key("a");
    let follower = event(&topic, "a", "after");
    outbox.write(&[large.clone(), follower.clone()]).await?;
    outbox.until_statuses(&[("FAILED", 1), ("PUBLISHED", 1)]).await?;

    // when: the cause is gone, and an operator puts it back
    topics::alter(&outbox.brokers, &topic, &[("max.message.bytes", "1048588")]).await?;
    wait::until("the row to be sent", SOON, || async {
        outbox.redrive(&topic).await?;
        Ok(Seen::when(outbox.statuses().await?, |now| {
            now.get("PUBLISHED") == Some(&2)
        }))
    })
    .await?;

    // then
    let reads = topics::read_all(&outbox.brokers, &topic).await?;
    assert_eq!(ids_on(&reads), [follower.id(), large.id()]);
    outbox.end(vec![publisher], outbox.audit()).await?;
    Ok(())
}

/// Makes a topic as soon as the one of that name is gone.
async fn made_again(brokers: &str, name: &str, partitions: i32) -> anyhow::Result<()> {
    wait::until(&format!("topic {name} to be made again"), SOON, || async {
        Ok(match topics::create(brokers, name, partitions, 1, &[]).await {
            Ok(()) => Seen::Yes(()),
            Err(error) => Seen::NotYet(format!("{error:#}")),
        })
    })
    .await
}
