//! A stream with everything in it, and rows that no promise covers.

use harness::wait::{self, Seen};

use super::{reconcile, system};
use crate::triage::scene::SOON;

#[tokio::test]
async fn a_clean_system_passes_with_the_numbers_of_the_judge() -> anyhow::Result<()> {
    // given
    let (scene, verdict) = system("recon-clean", 1_500).await?;

    // when
    let said = reconcile(&scene, &[]).await?;

    // then
    said.expect_clean();
    let expected = serde_json::to_value(&verdict)?;
    for member in [
        "records_in",
        "events_unique",
        "duplicates_suppressed",
        "dead_lettered",
        "decisions",
        "published",
        "lost",
        "decided_twice",
        "order_violations",
        "publish_duplicates",
    ] {
        assert_eq!(said.report[member], expected[member], "{member}: {:#}", said.report);
    }
    assert!(said.of_class("apart").contains_key("another-body"), "{:#}", said.report);
    assert_eq!(said.of_class("not-finished"), [].into());
    assert_eq!(said.of_class("gone"), [].into());
    scene.stack.drop_database(&scene.database).await
}

#[tokio::test]
async fn rows_set_aside_and_put_back_are_told_apart() -> anyhow::Result<()> {
    // given: of three rows of a key the first was set aside, and the others went on
    let (scene, _) = system("recon-redriven", 50).await?;
    scene
        .run(
            "insert into outbox_events (lane_hash, bucket, event_id, topic, key, event_type, payload, is_ordered) \
             select outbox_lane_hash(t, 'k', i), outbox_bucket('k', i), i, t, 'k', 'order', 'p', true \
               from (select gen_random_uuid() as i, topic as t from outbox_events where source_offset is not null \
                      order by id limit 3) as e; \
             update outbox_events set status = 'FAILED', lane = 2, last_error = 'too large' \
              where id = (select min(id) from outbox_events where event_type = 'order')",
        )
        .await?;
    scene.publish().await?;

    // when
    let failed = reconcile(&scene, &[]).await?;
    scene
        .run("select outbox_redrive(p_topic => topic) from outbox_events where status = 'FAILED'")
        .await?;
    let waiting = reconcile(&scene, &[]).await?;
    scene.publish().await?;
    let late = reconcile(&scene, &[]).await?;

    // then
    failed.expect_clean();
    assert_eq!(
        failed.of_class("apart").get("row-failed"),
        Some(&1),
        "{:#}",
        failed.report
    );
    waiting.expect_clean();
    assert_eq!(
        waiting.of_class("apart").get("row-redriven"),
        Some(&1),
        "{:#}",
        waiting.report
    );
    late.expect_clean();
    assert_eq!(
        late.of_class("apart").get("row-redriven"),
        Some(&1),
        "{:#}",
        late.report
    );
    scene.stack.drop_database(&scene.database).await
}

#[tokio::test]
async fn what_waits_is_not_finished_until_it_is_too_old() -> anyhow::Result<()> {
    // given: input that nobody reads, and a row that nobody publishes
    let (scene, _) = system("recon-waiting", 50).await?;
    scene.send(super::stream(30)).await?;
    scene
        .run("select outbox_enqueue((select min(topic) from outbox_events), 'k', 'order', 'p')")
        .await?;

    // when
    let young = reconcile(&scene, &[]).await?;
    let old = wait::until("a row to be older than a second", SOON, || async {
        let said = reconcile(&scene, &["--pending-age", "1s"]).await?;
        Ok(Seen::when(said.of_class("wrong"), |wrong| !wrong.is_empty()))
    })
    .await?;

    // then
    young.expect_clean();
    let waiting = young.of_class("not-finished");
    assert_eq!(waiting.get("row-pending"), Some(&1), "{:#}", young.report);
    assert_eq!(waiting.get("input-unclaimed"), Some(&30), "{:#}", young.report);
    assert_eq!(old, [("pending-too-long".to_owned(), 1)].into());
    scene.stack.drop_database(&scene.database).await
}
