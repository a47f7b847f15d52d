//! Leaves go only when nobody needs them, and what has failed keeps its way back.

use std::time::Duration;

use harness::wait::{self, Seen};
use outbox_publisher::ports::{LookBucket, OutboxStore, SettleRow};
use outbox_publisher::relay::Halt;
use sqlx::postgres::PgConnection;

use crate::outbox::fixture::{Outbox, Writer};
use crate::outbox::rig::Rig;
use crate::outbox::store::{Owner, Row, fail, look};

/// A leaf that only a FAILED row is in, below every low id.
async fn leaf_with_a_failed_row(test: &str) -> anyhow::Result<(Outbox, Row)> {
    let outbox = Outbox::new(test).await?;
    outbox.small_leaves(500, 4).await?;
    outbox.writer().await?.insert("K", "failed").await?;
    let row = Row::find(&outbox, "failed").await?;
    Owner::take_over(&outbox).await?.change(row, fail()).await?;
    outbox.next_id_is(600).await?;
    outbox.run("update outbox_leases set low_id = $1", 600).await?;
    Ok((outbox, row))
}

async fn drop_leaf(connection: &mut PgConnection) -> anyhow::Result<Option<String>> {
    Ok(sqlx::query_scalar("select outbox_drop_leaf('0')")
        .fetch_one(connection)
        .await?)
}

#[tokio::test]
async fn leaf_stays_while_anything_in_it_may_be_needed() -> anyhow::Result<()> {
    let (outbox, row) = leaf_with_a_failed_row("leaf_stays").await?;
    let mut keeper = outbox.connect().await?;
    // Rows within the retention.
    let young: Option<String> = sqlx::query_scalar("select outbox_drop_leaf('1 hour')")
        .fetch_one(&mut keeper)
        .await?;
    assert_eq!(young, None);
    outbox
        .run("update outbox_leaves set check_at = '-infinity' where $1 = 0", 0)
        .await?;
    // A low id inside it.
    outbox
        .run("update outbox_leases set low_id = 498 where bucket = $1", 5)
        .await?;
    assert_eq!(drop_leaf(&mut keeper).await?, None);
    outbox
        .run("update outbox_leases set low_id = 600 where bucket = $1", 5)
        .await?;
    // A row that waits, in whichever lane.
    outbox
        .run(
            "update outbox_events set status = 'PENDING', lane = 1 where id = $1",
            row.id,
        )
        .await?;
    assert_eq!(drop_leaf(&mut keeper).await?, None);
    outbox
        .run("update outbox_leaves set check_at = '-infinity' where $1 = 0", 0)
        .await?;
    // Nothing.
    outbox
        .run(
            "update outbox_events set status = 'FAILED', lane = 2 where id = $1",
            row.id,
        )
        .await?;
    assert_eq!(
        drop_leaf(&mut keeper).await?.as_deref(),
        Some("outbox_events_000000000000")
    );
    outbox.remove().await
}

#[tokio::test]
async fn leaf_that_stays_is_judged_without_a_lock() -> anyhow::Result<()> {
    // given a transaction that has settled rows of the leaf
    let (outbox, row) = leaf_with_a_failed_row("judged").await?;
    let mut keeper = outbox.connect().await?;
    let again = "update outbox_leaves set check_at = '-infinity' where $1 = 0";
    let mut settler = outbox.writer().await?;
    settler.begin().await?;
    settler
        .plain("lock table outbox_events_000000000000 in row exclusive mode")
        .await?;
    // when its newest row is young
    let young: Option<String> = sqlx::query_scalar("select outbox_drop_leaf('1 hour')")
        .fetch_one(&mut keeper)
        .await?;
    // then nobody waits
    assert_eq!(young, None);
    assert_eq!(
        outbox
            .number("select count(*) from outbox_leaves where check_at > now()")
            .await?,
        1
    );
    // when a row waits
    outbox.run(again, 0).await?;
    let waits = "update outbox_events set status = 'PENDING', lane = 1 where id = $1";
    outbox.run(waits, row.id).await?;
    // then nobody waits either
    assert_eq!(drop_leaf(&mut keeper).await?, None);
    // when nothing keeps it, then its last scan and its end want the lock
    outbox.run(again, 0).await?;
    let fails = "update outbox_events set status = 'FAILED', lane = 2 where id = $1";
    outbox.run(fails, row.id).await?;
    let refused = drop_leaf(&mut keeper).await.expect_err("the leaf is in use");
    assert!(refused.to_string().contains("lock timeout"), "{refused}");
    settler.commit().await?;
    assert!(drop_leaf(&mut keeper).await?.is_some());
    outbox.remove().await
}

#[tokio::test]
async fn settle_waits_for_no_lock_on_another_leaf() -> anyhow::Result<()> {
    // given rows of the second leaf, and a drop that scans the first
    let outbox = Outbox::new("settle_beside_drop").await?;
    outbox.small_leaves(500, 4).await?;
    outbox.next_id_is(600).await?;
    let mut writer = outbox.writer().await?;
    let names: Vec<String> = (0..10).map(|number| format!("row {number}")).collect();
    for name in &names {
        writer.insert("K", name).await?;
    }
    let owner = Owner::take_over(&outbox).await?;
    let mut keeper = outbox.writer().await?;
    keeper.begin().await?;
    keeper
        .plain("lock table outbox_events_000000000000 in share row exclusive mode")
        .await?;
    // when they are settled, more often than Postgres plans a kept statement anew
    for name in &names {
        let row = Row::find(&outbox, name).await?;
        let settled = SettleRow {
            bucket: row.bucket,
            id: row.id,
            event_id: row.event_id,
        };
        // then
        assert_eq!(owner.store.settle(vec![settled]).await?, 1, "{name}");
    }
    keeper.commit().await?;
    outbox.remove().await
}

#[tokio::test]
async fn failed_row_of_a_dropped_leaf_is_redriven_under_a_new_id() -> anyhow::Result<()> {
    // given
    let (outbox, row) = leaf_with_a_failed_row("archive").await?;
    let mut keeper = outbox.connect().await?;
    // when its leaf goes
    assert!(drop_leaf(&mut keeper).await?.is_some());
    // then it halts its key where that is the policy, and people see it
    let owner = Owner::take_over(&outbox).await?;
    let asked = LookBucket {
        bucket: row.bucket,
        epoch: owner.held[&row.bucket].epoch,
        after: None,
    };
    let answer = owner.store.look(look(asked, Halt::Everywhere)).await?;
    assert_eq!(
        answer.halted.iter().map(|head| head.event_id).collect::<Vec<_>>(),
        [row.event_id]
    );
    assert_eq!(outbox.number("select count(*) from outbox_failed").await?, 1);
    // when it is put back
    assert_eq!(redrive(&mut keeper, row).await?, 1);
    // then it is a row of the side lane again, above every low id, and is published
    let back = Row::find(&outbox, "failed").await?;
    assert_eq!((back.event_id, back.id >= 600), (row.event_id, true));
    assert_eq!(outbox.number("select count(*) from outbox_failed").await?, 0);
    outbox.owners_are_gone().await?;
    let mut rig = Rig::new(&outbox).await?;
    rig.until_sent("failed").await?;
    rig.go_round().await?;
    outbox.finish().await
}

async fn redrive(connection: &mut PgConnection, row: Row) -> anyhow::Result<i64> {
    Ok(sqlx::query_scalar("select outbox_redrive($1)")
        .bind(row.event_id)
        .fetch_one(connection)
        .await?)
}

#[tokio::test]
async fn redrive_between_scan_and_drop_of_a_leaf_waits_and_loses_nothing() -> anyhow::Result<()> {
    // given a drop that has scanned the leaf, and not committed
    let (outbox, row) = leaf_with_a_failed_row("redrive_waits").await?;
    let mut keeper = outbox.writer().await?;
    keeper.begin().await?;
    assert!(drop_leaf(&mut keeper.connection).await?.is_some());
    // when an operator puts the row back
    let mut operator = outbox.connect().await?;
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut operator)
        .await?;
    let redriven = tokio::spawn(async move { redrive(&mut operator, row).await });
    wait::until("the redrive to wait", Duration::from_secs(10), || async {
        let mut connection = outbox.connect().await?;
        let waits: Option<String> = sqlx::query_scalar("select wait_event_type from pg_stat_activity where pid = $1")
            .bind(pid)
            .fetch_one(&mut connection)
            .await?;
        Ok(Seen::when(waits, |waits| waits.as_deref() == Some("Lock")))
    })
    .await?;
    keeper.commit().await?;
    // then it finds the row in the archive
    assert_eq!(redriven.await??, 1);
    assert_eq!(outbox.rows().await?, ["failed 1 PENDING"]);
    assert_eq!(outbox.number("select count(*) from outbox_failed_archive").await?, 0);
    outbox.remove().await
}

#[tokio::test]
async fn without_the_lock_a_redrive_between_scan_and_drop_would_lose_the_row() -> anyhow::Result<()> {
    // given the same drop, its scan without a lock
    let (outbox, row) = leaf_with_a_failed_row("redrive_unlocked").await?;
    let mut keeper: Writer = outbox.writer().await?;
    keeper.begin().await?;
    let pending = "select count(*) from outbox_events_000000000000 where status = 'PENDING'";
    assert_eq!(outbox.number(pending).await?, 0);
    // when the redrive comes in between
    assert_eq!(redrive(&mut outbox.connect().await?, row).await?, 1);
    keeper
        .plain(
            "insert into outbox_failed_archive (bucket, id, lane_hash, event_id, topic, event_type) \
             select bucket, id, lane_hash, event_id, topic, event_type from outbox_events_000000000000 \
              where status = 'FAILED'; drop table outbox_events_000000000000",
        )
        .await?;
    keeper.commit().await?;
    // then the row is nowhere
    assert_eq!(outbox.rows().await?, Vec::<String>::new());
    assert_eq!(outbox.number("select count(*) from outbox_failed_archive").await?, 0);
    outbox.remove().await
}

#[tokio::test]
async fn leaves_are_made_ahead_without_stopping_writers() -> anyhow::Result<()> {
    // given a writer in the middle of a transaction
    let outbox = Outbox::new("leaves_ahead").await?;
    outbox.small_leaves(500, 4).await?;
    let mut writer = outbox.writer().await?;
    writer.begin().await?;
    writer.insert("K", "open").await?;
    outbox.next_id_is(2000).await?;
    // when
    let made = outbox.number("select outbox_make_leaves(500, 4)::bigint").await?;
    // then
    assert_eq!(made, 4);
    writer.insert("K", "in a new leaf").await?;
    writer.commit().await?;
    assert_eq!(outbox.rows().await?.len(), 2);
    outbox.remove().await
}
