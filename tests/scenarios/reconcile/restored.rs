//! A database that is older than Kafka: what docs/operations.md says of a restore.

use harness::stack::unique;
use harness::{Ability, Stack};
use sqlx::{AssertSqlSafe, Connection};

use super::damage::commit;
use super::{reconcile, stream, system};
use crate::triage::scene::drain;

#[tokio::test]
async fn a_restored_database_tells_what_its_group_would_pass_over() -> anyhow::Result<()> {
    if Stack::shared().await?.skips("recon-restored", &[Ability::GivenOffsets]) {
        return Ok(());
    }
    // given: a backup, and work that it knows nothing of
    let (mut scene, backed_up) = system("recon-restored", 300).await?;
    let before = scene.committed().await?;
    let backup = unique("recon-backup");
    let mut admin = harness::postgres::connect(&scene.database.url.replace(&scene.database.name, "postgres")).await?;
    let copy = format!(r#"create database "{backup}" template "{}""#, scene.database.name);
    sqlx::query(AssertSqlSafe(copy)).execute(&mut admin).await?;
    admin.close().await?;
    let service = scene.start("decides-more").await?;
    // A record without a key may stand in two partitions, and the other one be taken the second time: then its outcome
    // follows other offsets than the one that is on the topic already.
    scene
        .send(stream(200).into_iter().filter(|record| record.key.is_some()).collect())
        .await?;
    scene.until_passed().await?;
    drain(vec![service]).await?;
    scene.publish().await?;
    let verdict = scene.judge(&scene.triage).await?;
    let lost = verdict.published - backed_up.published;

    // when: the backup is in its place, first with the group where it was, then with the group put back
    scene.stack.drop_database(&scene.database).await?;
    scene.database.url = scene.database.url.replace(&scene.database.name, &backup);
    scene.database.name = backup;
    let passed_over = reconcile(&scene, &[]).await?;
    commit(&scene, before.iter().map(|at| (at.partition, at.high)).collect()).await?;
    let put_back = reconcile(&scene, &[]).await?;
    let service = scene.start("decides-again").await?;
    scene.until_passed().await?;
    drain(vec![service]).await?;
    scene.publish().await?;
    let recovered = reconcile(&scene, &[]).await?;

    // then: outcomes are decided again under the same ids, so nothing is missed
    let wrong = passed_over.of_class("wrong");
    assert!(wrong["offset-past-unclaimed"] > 100, "{wrong:?}");
    assert_eq!(wrong["record-without-row"], lost, "{wrong:?}");
    put_back.expect_wrong(&[("record-without-row", lost)]);
    let wrong: Vec<_> = recovered.of_class("wrong").into_keys().collect();
    assert_eq!(
        wrong,
        ["payload-differs"],
        "the envelope says when: {:#}",
        recovered.report
    );
    assert_eq!(recovered.report["lost"], 0);
    assert_eq!(recovered.report["decided_twice"], 0);
    assert_eq!(
        recovered.of_class("apart").get("published-again"),
        Some(&lost),
        "{:#}",
        recovered.report
    );
    scene.stack.drop_database(&scene.database).await
}
