//! An event that commits behind its key's next one, or behind the cursor.

use std::time::Duration;

use harness::wait::{self, Seen};
use outbox_publisher::domain::rules::Rule;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{Seq, commit_and_follow, judge};
use crate::outbox::fixture::{Keys, Outbox, TOPIC};
use crate::outbox::rig::Rig;

async fn late_commit(outbox: &Outbox, off: Option<Rule>, beside: &str) -> anyhow::Result<Seq> {
    let mut rig = Rig::without(outbox, off).await?;
    let (mut first, mut second) = (outbox.writer().await?, outbox.writer().await?);
    first.begin().await?;
    first.insert("K", "a").await?;
    second.insert(beside, "x").await?;
    rig.until_sent("x").await?;
    commit_and_follow(&mut rig, &mut first, &mut second).await
}

#[tokio::test]
async fn late_commit_is_published_before_its_keys_next_event() -> anyhow::Result<()> {
    let keys = Keys::find();
    let server = Outbox::alone("late_commits", &[]).await?;
    for beside in [&keys.one, &keys.beside, &keys.elsewhere] {
        let outbox = server.another("late_commit").await?;
        assert_eq!(
            late_commit(&outbox, None, beside).await?,
            Seq::InOrder,
            "behind {beside}"
        );
        outbox.finish().await?;
    }
    // A fast path above the cursor with a sweep for late ids finds `a` in the end, behind `b`. Now and
    // then the sweep comes just in time.
    let mut seen = Vec::new();
    for _ in 0..6 {
        let outbox = server.another("late_commit_two_cursors").await?;
        seen.push(late_commit(&outbox, Some(Rule::OneCursor), &keys.beside).await?);
        outbox.remove().await?;
    }
    assert!(seen.contains(&Seq::Inverted), "two cursors were not caught: {seen:?}");
    Ok(())
}

#[tokio::test]
async fn late_commit_in_an_older_leaf_is_published_before_its_keys_next_event() -> anyhow::Result<()> {
    let outbox = Outbox::new("leaf_border").await?;
    outbox.small_leaves(500, 4).await?;
    outbox.next_id_is(499).await?;
    assert_eq!(late_commit(&outbox, None, &Keys::find().beside).await?, Seq::InOrder);
    let leaves = "select count(distinct tableoid) from outbox_events";
    assert_eq!(
        outbox.number(leaves).await?,
        2,
        "the events must lie on both sides of the border"
    );
    outbox.finish().await
}

#[tokio::test]
async fn leaf_after_leaf_would_show_the_next_event_without_the_late_one() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::new("leaf_after_leaf").await?;
    outbox.small_leaves(500, 4).await?;
    outbox.next_id_is(499).await?;
    let (mut first, mut second) = (outbox.writer().await?, outbox.writer().await?);
    first.begin().await?;
    first.insert("K", "a").await?;
    second.insert(&Keys::find().beside, "x").await?;
    // when the leaves are read one after the other
    let mut reader = outbox.connect().await?;
    let older = labels(
        &mut reader,
        "select convert_from(payload, 'UTF8') from outbox_events_000000000000",
    )
    .await?;
    first.commit().await?;
    second.insert("K", "b").await?;
    let newer = labels(
        &mut reader,
        "select convert_from(payload, 'UTF8') from outbox_events_000000000500",
    )
    .await?;
    // then what they show together never was
    assert_eq!((older, newer), (vec![], vec!["x".to_owned(), "b".to_owned()]));
    let together = labels(
        &mut reader,
        "select convert_from(payload, 'UTF8') from outbox_events order by id",
    )
    .await?;
    assert_eq!(together, ["a", "x", "b"]);
    outbox.remove().await
}

async fn labels(reader: &mut PgConnection, query: &'static str) -> anyhow::Result<Vec<String>> {
    Ok(sqlx::query_scalar(query).fetch_all(reader).await?)
}

/// A writer that has drawn its id and is stopped before it inserts.
async fn stalled_writer(outbox: &Outbox, has_trigger: bool) -> anyhow::Result<Seq> {
    let (mut holder, mut second) = (outbox.writer().await?, outbox.writer().await?);
    holder
        .plain(
            "create function when_the_test_says(value integer) returns integer language plpgsql as $$ \
             begin perform pg_advisory_xact_lock_shared(7); return value; end $$",
        )
        .await?;
    if !has_trigger {
        holder.plain("drop trigger outbox_events_xid on outbox_events").await?;
    }
    // The first id of 32 is logged, which takes an xid of its own accord.
    second.insert("L", "first").await?;
    holder.plain("select pg_advisory_lock(7)").await?;
    let mut rig = Rig::new(outbox).await?;
    let mut stalled = outbox.connect().await?;
    let stalled = tokio::spawn(async move {
        // Columns are computed in their order: the id is drawn, and then the lane hash waits.
        sqlx::query(
            "insert into outbox_events (lane_hash, bucket, event_id, topic, key, event_type, payload) \
             values (when_the_test_says(outbox_lane_hash($1, $2, $3)), outbox_bucket($2, $3), $3, $1, $2, 'x', 'a')",
        )
        .bind(TOPIC)
        .bind(b"K".as_slice())
        .bind(Uuid::now_v7())
        .execute(&mut stalled)
        .await
    });
    let drawn = "select case when is_called then last_value else 0 end from outbox_events_id_seq";
    wait::until("the stalled writer's id", Duration::from_secs(10), || async {
        Ok(Seen::when(outbox.number(drawn).await?, |id| *id == 2))
    })
    .await?;
    second.insert(&Keys::find().beside, "x").await?;
    rig.until_sent("x").await?;
    rig.go_round().await?;
    holder.plain("select pg_advisory_unlock(7)").await?;
    stalled.await??;
    second.insert("K", "b").await?;
    rig.until_sent("b").await?;
    rig.go_round().await?;
    Ok(judge(rig.sent()))
}

#[tokio::test]
async fn writer_stalled_between_its_id_and_its_row_is_waited_for() -> anyhow::Result<()> {
    let outbox = Outbox::alone("stalled_writer", &[]).await?;
    assert_eq!(stalled_writer(&outbox, true).await?, Seq::InOrder);
    // Without the trigger it has an id and no xid: no snapshot names it, and the cursor passes it.
    let other = outbox.another("stalled_writer_no_trigger").await?;
    assert_eq!(stalled_writer(&other, false).await?, Seq::Lost);
    outbox.finish().await
}

#[tokio::test]
async fn copy_has_its_xid_before_its_first_id() -> anyhow::Result<()> {
    let outbox = Outbox::new("copy").await?;
    let mut rig = Rig::new(&outbox).await?;
    let event_id = Uuid::now_v7();
    let line = format!(
        "{}\t{}\t{event_id}\t{TOPIC}\t\\\\x4b\tx\t\\\\x61\n",
        shared::hash::lane_hash(TOPIC, Some(b"K"), event_id),
        shared::hash::bucket_of(Some(b"K"), event_id),
    );
    for has_trigger in [true, false] {
        // given
        let mut writer = outbox.writer().await?;
        if !has_trigger {
            writer.plain("drop trigger outbox_events_xid on outbox_events").await?;
        }
        let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
            .fetch_one(&mut writer.connection)
            .await?;
        // when a COPY has begun and no row has come
        let mut copy = writer
            .connection
            .copy_in_raw("copy outbox_events (lane_hash, bucket, event_id, topic, key, event_type, payload) from stdin")
            .await?;
        // The server asks for rows before it runs the triggers of the statement: they have run once it waits for one.
        let waiting = "select count(*) from pg_stat_activity where datname = current_database() \
                       and query like 'copy outbox_events%' and state = 'active' and wait_event = 'ClientRead'";
        wait::until("the COPY to wait for a row", Duration::from_secs(10), || async {
            Ok(Seen::when(outbox.number(waiting).await?, |count| *count == 1))
        })
        .await?;
        let mut observer = outbox.connect().await?;
        let has_xid: bool = sqlx::query_scalar("select backend_xid is not null from pg_stat_activity where pid = $1")
            .bind(pid)
            .fetch_one(&mut observer)
            .await?;
        // then
        assert_eq!(has_xid, has_trigger);
        copy.send(line.as_bytes()).await?;
        assert_eq!(copy.finish().await?, 1);
    }
    rig.until("both rows", |rig| rig.sent() == ["a", "a"]).await?;
    rig.go_round().await?;
    outbox.finish().await
}
