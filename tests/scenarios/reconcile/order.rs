//! A topic that was written in the right order, and in a wrong one.

use harness::{Record, topics};
use sqlx::Connection;
use uuid::Uuid;

use super::reconcile;
use crate::triage::scene::{Scene, drain, event};

/// A row as a publisher would send it.
#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    event_id: Uuid,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
}

/// Decides ten events of one key; no publisher runs.
async fn decided(test: &str) -> anyhow::Result<(Scene, Vec<Row>)> {
    let scene = Scene::new(test, 1).await?;
    let service = scene.start("decides").await?;
    let events = (0..10).map(|n| event(Uuid::new_v4(), "customer", &format!("message {n}")));
    scene.send(events.collect()).await?;
    scene.until_passed().await?;
    drain(vec![service]).await?;
    let rows = rows(&scene).await?;
    Ok((scene, rows))
}

async fn rows(scene: &Scene) -> anyhow::Result<Vec<Row>> {
    let mut connection = scene.connect().await?;
    let rows = sqlx::query_as("select id, event_id, key, payload from outbox_events order by id")
        .fetch_all(&mut connection)
        .await?;
    connection.close().await?;
    Ok(rows)
}

/// Writes rows to the output in the order given; where each one lies.
async fn publish(scene: &Scene, rows: &[Row], order: &[usize]) -> anyhow::Result<Vec<(i32, i64)>> {
    let records = order.iter().map(|&n| Record {
        key: rows[n].key.clone(),
        value: rows[n].payload.clone(),
        headers: vec![
            ("event-id".to_owned(), Some(rows[n].event_id.to_string().into_bytes())),
            ("outbox-id".to_owned(), Some(rows[n].id.to_string().into_bytes())),
        ],
        ..Record::default()
    });
    topics::produce(&scene.brokers, &scene.triage.output, records.collect()).await
}

const SETTLE: &str = "update outbox_events set status = 'PUBLISHED', published_at = now() where status = 'PENDING'";

#[tokio::test]
async fn two_swapped_records_are_found_and_nothing_else() -> anyhow::Result<()> {
    // given
    let (right, rows) = decided("recon-order-right").await?;
    let (wrong, others) = decided("recon-order-wrong").await?;

    // when: in order, with a repetition behind; and with the fifth before the fourth
    publish(&right, &rows, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2, 3]).await?;
    publish(&wrong, &others, &[0, 1, 2, 4, 3, 5, 6, 7, 8, 9]).await?;
    right.run(SETTLE).await?;
    wrong.run(SETTLE).await?;
    let (right_said, wrong_said) = (reconcile(&right, &[]).await?, reconcile(&wrong, &[]).await?);

    // then
    right_said.expect_clean();
    assert_eq!(right_said.of_class("apart").get("published-again"), Some(&2));
    wrong_said.expect_wrong(&[("order-inverted", 1)]);
    let example = &wrong_said.examples("order-inverted")[0];
    assert_eq!(example["row"], others[4].id, "{example}");
    assert_eq!(example["event_id"], others[4].event_id.to_string());
    assert_eq!(wrong_said.report["order_violations"], 1);
    right.stack.drop_database(&right.database).await?;
    wrong.stack.drop_database(&wrong.database).await
}

#[tokio::test]
async fn a_record_that_overtook_a_pending_row_is_found_before_that_one_is_sent() -> anyhow::Result<()> {
    // given
    let (scene, rows) = decided("recon-overtaken").await?;

    // when: the fourth stays behind
    publish(&scene, &rows, &[0, 1, 2, 4]).await?;
    let said = reconcile(&scene, &[]).await?;

    // then
    said.expect_wrong(&[("order-inverted", 1)]);
    let note = said.examples("order-inverted")[0]["note"].to_string();
    assert!(
        note.contains(&format!("row {}, which is not there yet", rows[3].id)),
        "{note}"
    );
    scene.stack.drop_database(&scene.database).await
}

#[tokio::test]
async fn only_promised_pairs_count() -> anyhow::Result<()> {
    // given: rows of two transactions side by side, of a null key, and two of one transaction
    let scene = library("recon-promises").await?;
    let mut open = scene.connect().await?;
    sqlx::raw_sql("begin; select outbox_enqueue(name, 'k', 'a', 'p') from output_topic")
        .execute(&mut open)
        .await?;
    scene
        .run("select outbox_enqueue(name, 'k', 'b', 'p') from output_topic")
        .await?;
    sqlx::raw_sql("commit").execute(&mut open).await?;
    scene.run("begin; select outbox_enqueue(name, null, 'c', 'p') from output_topic; select outbox_enqueue(name, null, 'd', 'p') from output_topic; commit").await?;
    scene.run("begin; select outbox_enqueue(name, 'l', 'e', 'p') from output_topic; select outbox_enqueue(name, 'l', 'f', 'p') from output_topic; commit").await?;
    let rows = rows(&scene).await?;
    scene.run(SETTLE).await?;

    // when: all of it backwards
    publish(&scene, &rows, &[5, 4, 3, 2, 1, 0]).await?;
    let said = reconcile(&scene, &["--topic", &scene.triage.output]).await?;

    // then: only the pair of one transaction and one key
    said.expect_wrong(&[("order-inverted", 1)]);
    assert_eq!(said.examples("order-inverted")[0]["row"], rows[5].id);
    scene.stack.drop_database(&scene.database).await
}

#[tokio::test]
async fn a_row_follows_those_whose_transactions_it_knows_to_have_ended() -> anyhow::Result<()> {
    // given: two rows of a key, one committed before the other was inserted; and two of another key, so too, while a
    // transaction was open from before: of them the second does not know it
    let scene = library("recon-ended").await?;
    scene
        .run("select outbox_enqueue(name, 'k', 'a', 'p') from output_topic")
        .await?;
    // Transactions of other databases count, too.
    scene
        .until(
            "select count(*) from outbox_events where inserted_xid >= pg_snapshot_xmin(pg_current_snapshot())",
            |running| running == 0,
        )
        .await?;
    scene
        .run("select outbox_enqueue(name, 'k', 'b', 'p') from output_topic")
        .await?;
    let mut open = scene.connect().await?;
    sqlx::raw_sql("begin; select pg_current_xact_id()")
        .execute(&mut open)
        .await?;
    for _ in 0..2 {
        scene
            .run("select outbox_enqueue(name, 'l', 'c', 'p') from output_topic")
            .await?;
    }
    sqlx::raw_sql("commit").execute(&mut open).await?;
    let rows = rows(&scene).await?;

    // when: both pairs are swapped, at first without the one that was to come first
    let look = async || reconcile(&scene, &["--topic", &scene.triage.output]).await;
    publish(&scene, &rows, &[1, 3, 2]).await?;
    let overtaken = look().await?;
    let behind = publish(&scene, &rows, &[0]).await?[0].1;
    scene.run(SETTLE).await?;
    let swapped = look().await?;
    // the numbers of a server that has run for long: the lower half of the second has begun anew
    scene
        .run(
            "update outbox_events set inserted_xid = case event_type when 'a' then '8589934590' else '8589934593' end::xid8, \
                    ended_below = case event_type when 'a' then '4294967000' else '4294967295' end::xid where key = 'k'",
        )
        .await?;
    let after_years = look().await?;
    // from before rows knew it
    scene.run("update outbox_events set ended_below = null").await?;
    let unknown = look().await?;

    // then
    let at = format!("is at {behind}");
    for (said, what) in [(&overtaken, "is not there yet"), (&swapped, &at), (&after_years, &at)] {
        said.expect_wrong(&[("order-inverted", 1)]);
        let example = &said.examples("order-inverted")[0];
        assert_eq!(example["row"], rows[1].id, "{example}");
        let note = format!("was to follow row {}, which {what}", rows[0].id);
        assert_eq!(example["note"], note);
    }
    unknown.expect_clean();
    scene.stack.drop_database(&scene.database).await
}

/// What a dump carries into another server has transactions' numbers of the one that it came from.
#[tokio::test]
async fn numbers_of_two_servers_make_no_order() -> anyhow::Result<()> {
    // given: a row with the numbers of a server that had run for longer, and one that was written after it
    let scene = library("recon-dump").await?;
    for row in ["a", "b"] {
        let mut connection = scene.connect().await?;
        sqlx::query("select outbox_enqueue(name, 'k', $1, 'p') from output_topic")
            .bind(row)
            .execute(&mut connection)
            .await?;
        connection.close().await?;
    }
    scene
        .run("update outbox_events set inserted_xid = '1000000000000', ended_below = '3000000000' where event_type = 'a'")
        .await?;
    let rows = rows(&scene).await?;

    // when
    publish(&scene, &rows, &[0, 1]).await?;
    scene.run(SETTLE).await?;
    let said = reconcile(&scene, &["--topic", &scene.triage.output]).await?;

    // then
    said.expect_clean();
    scene.stack.drop_database(&scene.database).await
}

/// A scene with an empty outbox, whose output topic is in a table, for statements that are written down.
async fn library(test: &str) -> anyhow::Result<Scene> {
    let scene = Scene::new(test, 1).await?;
    let mut connection = scene.connect().await?;
    sqlx::raw_sql("create table output_topic (name text)")
        .execute(&mut connection)
        .await?;
    sqlx::query("insert into output_topic values ($1)")
        .bind(&scene.triage.output)
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    Ok(scene)
}
