//! What a finding prints as its remedy, typed as it stands: afterwards nothing is wrong.

use anyhow::{Context, ensure};
use harness::{Ability, Stack};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection};
use uuid::Uuid;

use super::damage::{VICTIM, commit};
use super::{Said, reconcile, stream, system_of};
use crate::triage::scene::{Scene, drain, event};

/// The statements of a finding's remedy, with the first example's names in the places that the remedy leaves open.
fn statements(said: &Said, code: &str, consumer: &str) -> anyhow::Result<Vec<String>> {
    let findings = said.report["findings"].as_array().context("a report has findings")?;
    let found = findings.iter().find(|finding| finding["code"] == code);
    let remedy = found
        .and_then(|finding| finding["remedy"].as_str())
        .context("a remedy")?;
    let example = said.examples(code).into_iter().next().context("an example")?;
    let text = |member: &str| example[member].as_str().unwrap_or_default().to_owned();
    let bucket = text("note").split(' ').nth(1).unwrap_or_default().to_owned();
    let pieces = remedy.split(';').filter_map(|piece| {
        let begins = ["update ", "delete from ", "select outbox_redrive("];
        let at = begins.iter().filter_map(|word| piece.find(word)).min()?;
        Some(
            piece[at..]
                .replace("p_topic => '...'", &format!("p_topic => '{}'", text("topic")))
                .replace("'...'", &format!("'{}'", text("event_id")))
                .replace("bucket = ...", &format!("bucket = {bucket}"))
                .replace("CONSUMER", consumer),
        )
    });
    let statements: Vec<_> = pieces.collect();
    ensure!(
        !statements.is_empty() && !statements.join("").contains("..."),
        "{code}: {remedy}: {statements:?}"
    );
    Ok(statements)
}

/// Types what the remedy says.
async fn mend(scene: &Scene, said: &Said, code: &str) -> anyhow::Result<()> {
    let mut connection = scene.connect().await?;
    for statement in statements(said, code, &scene.triage.consumer)? {
        eprintln!("{code}: {statement}");
        let done = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
        ensure!(done.rows_affected() > 0, "{code}: it changed nothing");
    }
    Ok(connection.close().await?)
}

/// A system with one event whose records and rows are known.
async fn damaged(test: &str) -> anyhow::Result<Scene> {
    let mut records = stream(200);
    records.insert(100, event(Uuid::new_v4(), "victim", "it does not work"));
    let (scene, _) = system_of(test, records).await?;
    scene.run(VICTIM).await?;
    Ok(scene)
}

#[tokio::test]
async fn statements_of_remedies_mend_what_they_are_printed_for() -> anyhow::Result<()> {
    // given
    let scene = damaged("recon-mended").await?;
    for (code, damage) in [
        (
            "published-without-record",
            "select outbox_enqueue((select min(topic) from outbox_events where event_type <> 'dead-letter'), 'k', 'order', 'p'); \
             update outbox_events set status = 'PUBLISHED', published_at = now() where event_type = 'order'",
        ),
        (
            "lease-of-nobody",
            "update outbox_leases set lock_owner = gen_random_uuid(), locked_until = now() + interval '1 hour' where bucket = 7",
        ),
        (
            "row-failed",
            "select outbox_enqueue((select min(topic) from outbox_events where event_type <> 'dead-letter'), 'k', 'second', 'p'); \
             update outbox_events set status = 'FAILED', lane = 2 where event_type = 'second'",
        ),
    ] {
        scene.run(damage).await.context(code)?;
        let said = reconcile(&scene, &[]).await?;

        // when
        mend(&scene, &said, code).await?;
        scene.publish().await?;

        // then
        let mended = reconcile(&scene, &[]).await?;
        mended.expect_clean();
        assert!(!mended.of_class("apart").contains_key(code), "{:#}", mended.report);
    }
    scene.stack.drop_database(&scene.database).await
}

/// Puts the group back to the lowest offset of the examples, starts what decides, and publishes.
async fn put_back(scene: &Scene, examples: &[Value]) -> anyhow::Result<()> {
    let place = |example: &Value| {
        Some((
            i32::try_from(example["partition"].as_i64()?).ok()?,
            example["offset"].as_i64()?,
        ))
    };
    let mut places: Vec<_> = examples.iter().filter_map(place).collect();
    ensure!(places.len() == examples.len() && !places.is_empty(), "{examples:?}");
    places.sort_unstable();
    places.dedup_by_key(|(partition, _)| *partition); // the first of each is the lowest
    commit(scene, places).await?;
    decide(scene).await
}

/// Starts what decides until it has read all, and publishes.
pub(crate) async fn decide(scene: &Scene) -> anyhow::Result<()> {
    let service = scene.start("decides-again").await?;
    scene.until_passed().await?;
    drain(vec![service]).await?;
    scene.publish().await
}

#[tokio::test]
async fn remedies_that_put_the_group_back_decide_again_under_the_same_ids() -> anyhow::Result<()> {
    if Stack::shared().await?.skips("recon-again", &[Ability::GivenOffsets]) {
        return Ok(());
    }
    // given: outcomes that were published before say another moment than those that are decided again
    let scene = damaged("recon-again").await?;
    for (code, damage, left) in [
        (
            "claim-without-dead-letter",
            "delete from outbox_events where id = (select min(id) from outbox_events where event_type = 'dead-letter')",
            &[][..],
        ),
        (
            "claim-without-outcome",
            "delete from outbox_events e using victim v where v.row_id = e.id",
            &[("payload-differs", 1)],
        ),
    ] {
        scene.run(damage).await?;
        let said = reconcile(&scene, &[]).await?;

        // when
        mend(&scene, &said, code).await.context(code)?;
        put_back(&scene, &said.examples(code)).await?;

        // then
        reconcile(&scene, &[]).await?.expect_wrong(left);
    }
    scene.stack.drop_database(&scene.database).await
}

#[tokio::test]
async fn a_group_whose_offsets_were_moved_is_put_back_and_nothing_is_missed() -> anyhow::Result<()> {
    if Stack::shared().await?.skips("recon-moved", &[Ability::GivenOffsets]) {
        return Ok(());
    }
    // given: records that nobody has read; the group is put behind them, and then beyond the ends
    let scene = damaged("recon-moved").await?;
    scene.send(stream(60)).await?;
    let ends: Vec<_> = scene
        .committed()
        .await?
        .iter()
        .map(|at| (at.partition, at.high))
        .collect();
    commit(&scene, ends.clone()).await?;
    let passed = reconcile(&scene, &["--examples", "1000"]).await?;

    // when
    put_back(&scene, &passed.examples("offset-past-unclaimed")).await?;
    let decided = reconcile(&scene, &[]).await?;
    commit(
        &scene,
        ends.iter().map(|(partition, high)| (*partition, high + 5)).collect(),
    )
    .await?;
    let beyond = reconcile(&scene, &[]).await?;
    commit(&scene, ends.iter().map(|(partition, _)| (*partition, 0)).collect()).await?; // --to-earliest
    decide(&scene).await?;
    let mended = reconcile(&scene, &[]).await?;

    // then
    assert!(
        passed.of_class("wrong")["offset-past-unclaimed"] > 40,
        "{:#}",
        passed.report
    );
    decided.expect_clean();
    beyond.expect_wrong(&[("offset-past-end", 3)]);
    mended.expect_clean();
    assert_eq!(mended.report["publish_duplicates"], 0);
    scene.stack.drop_database(&scene.database).await
}
