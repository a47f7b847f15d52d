//! What retention has removed, and windows.

use harness::{Ability, Stack, topics};

use super::{reconcile, stream, system};
use crate::triage::scene::drain;

#[tokio::test]
async fn what_kafka_has_removed_is_gone_and_not_lost() -> anyhow::Result<()> {
    if Stack::shared().await?.skips("recon-removed", &[Ability::Admin]) {
        return Ok(());
    }
    // given
    let (scene, verdict) = system("recon-removed", 400).await?;
    let output = &scene.triage.output;
    let reaches = topics::reaches(&scene.brokers, output).await?;

    // when: the first half of each partition is removed
    let cuts: Vec<_> = reaches.iter().map(|reach| (reach.partition, reach.high / 2)).collect();
    topics::remove_before(&scene.brokers, output, &cuts).await?;
    let said = reconcile(&scene, &[]).await?;

    // then
    said.expect_clean();
    let removed: i64 = cuts.iter().map(|(_, before)| before).sum();
    assert!(removed > 100 && verdict.published > removed.unsigned_abs());
    assert_eq!(
        said.of_class("gone").get("record-gone"),
        Some(&removed.unsigned_abs()),
        "{:#}",
        said.report
    );
    scene.stack.drop_database(&scene.database).await
}

#[tokio::test]
async fn rows_whose_leaf_was_dropped_are_gone_and_a_missing_one_is_not() -> anyhow::Result<()> {
    // given: a leaf that was dropped, as upkeep does it, and rows in the next one
    let (scene, before) = system("recon-leaf", 300).await?;
    scene
        .run(
            "select setval('outbox_events_id_seq', (select min(upper_id) from outbox_leaves)); \
             update outbox_leases set low_id = (select min(upper_id) from outbox_leaves)",
        )
        .await?;
    let service = scene.start("decides-more").await?;
    for _ in 0..2 {
        // Of the transaction that wrote the oldest row that is kept, nobody can tell which rows were dropped.
        scene.send(stream(100)).await?;
        scene.until_passed().await?;
    }
    drain(vec![service]).await?;
    scene.publish().await?;
    scene.run("update outbox_leaves set check_at = '-infinity'").await?; // the publishers' upkeep has looked at it
    let dropped = scene.number("select count(outbox_drop_leaf('0'))").await?;
    assert_eq!(dropped, 1);

    // when
    let clean = reconcile(&scene, &[]).await?;
    scene.run("delete from outbox_events where id = (select max(id) from outbox_events where event_type <> 'dead-letter')").await?;
    let damaged = reconcile(&scene, &[]).await?;

    // then
    clean.expect_clean();
    let gone = clean.of_class("gone");
    assert_eq!(gone.get("row-gone"), Some(&before.published), "{:#}", clean.report);
    assert_eq!(gone.get("outcome-gone"), Some(&before.published), "{:#}", clean.report);
    damaged.expect_wrong(&[("claim-without-outcome", 1), ("record-without-row", 1)]);
    scene.stack.drop_database(&scene.database).await
}

#[tokio::test]
async fn a_window_has_only_what_it_was_asked_for() -> anyhow::Result<()> {
    // given: a row of some offset is deleted
    let (scene, _) = system("recon-window", 300).await?;
    let output = scene.triage.output.clone();
    let reads = topics::read_all(&scene.brokers, &output).await?;
    let victim = reads.iter().find(|read| read.partition == 1 && read.offset == 20);
    let victim = victim
        .and_then(|read| read.header("outbox-id"))
        .expect("a record of ours")
        .to_owned();
    let mut connection = scene.connect().await?;
    sqlx::query("delete from outbox_events where id = $1")
        .bind(victim.parse::<i64>()?)
        .execute(&mut connection)
        .await?;

    let has_times = !scene
        .stack
        .skips("recon-window --since, --until", &[Ability::TimeIndex]);
    let is_shown =
        |arguments: &[&str]| has_times || !arguments.iter().any(|text| ["--since", "--until"].contains(text));
    for (arguments, expected) in [
        (vec!["--topic", &output], 1),
        (vec!["--topic", &output, "--partition", "1"], 1),
        (vec!["--topic", &output, "--partition", "2"], 0),
        (vec!["--topic", &output, "--partition", "1", "--from-offset", "20"], 1),
        (vec!["--topic", &output, "--partition", "1", "--from-offset", "21"], 0),
        (vec!["--topic", &output, "--partition", "1", "--to-offset", "20"], 0),
        (vec!["--topic", &scene.triage.dead_letter], 0),
        (vec!["--topic", &output, "--since", "1h"], 1),
        (vec!["--topic", &output, "--until", "1h"], 0),
    ] {
        if !is_shown(&arguments) {
            continue;
        }
        // when
        let said = reconcile(&scene, &arguments).await?;

        // then
        let wrong = [("record-without-row", expected)];
        said.expect_wrong(if expected > 0 { &wrong } else { &[] });
    }
    scene.stack.drop_database(&scene.database).await
}
