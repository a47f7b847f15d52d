//! Marks, settles, and the locks that raise a floor.

use anyhow::ensure;
use outbox_publisher::ports::{ChangeKind, LookRequest, SettleRow};
use outbox_publisher::relay::Halt;
use uuid::Uuid;

use crate::outbox::subject::{Fixture, Subject, TOPIC, fail, read};

/// The reason for a transaction of our own: behind it, each snapshot names whoever has drawn an id.
pub async fn a_mark_makes_every_running_writer_named(store: &mut impl Subject) -> anyhow::Result<()> {
    // given a writer that is the last to have begun
    let owner = store.take(1).await?;
    let writer = store.begin().await?;
    let row = store.insert(writer, TOPIC, "K").await?;
    let xid = store.draw_xid(writer).await?;
    // when
    let mark = store.mark().await?;
    // then
    ensure!(mark >= row.id);
    let snapshot = store.read(read(vec![owner.reads(0)], Vec::new())).await?.snapshot;
    ensure!(snapshot.running.contains(&xid), "{snapshot:?} does not name {xid}");
    store.commit(writer).await
}

/// Before the first id it is 0, and it never waits for a commit.
pub async fn a_mark_samples_what_was_drawn_whether_committed_or_not(store: &mut impl Subject) -> anyhow::Result<()> {
    let owner = store.take(1).await?;
    ensure!(store.mark().await? == 0);
    ensure!(store.locks(Vec::new()).await?.0 == 0);
    let writer = store.begin().await?;
    let row = store.insert(writer, TOPIC, "K").await?;
    ensure!(store.mark().await? == row.id);
    ensure!(store.locks(Vec::new()).await?.0 == row.id);
    ensure!(store.read(read(vec![owner.reads(0)], Vec::new())).await?.sample == row.id);
    store.roll_back(writer).await?;
    ensure!(store.mark().await? == row.id);
    Ok(())
}

/// After a crash an id may be another row's.
pub async fn a_settle_names_bucket_id_and_event_id(store: &mut impl Subject) -> anyhow::Result<()> {
    let owner = store.take(1).await?;
    let row = store.committed(&["K"]).await?[0];
    let (id, bucket) = (row.id, row.bucket);
    for stranger in [
        SettleRow { id: id + 1, ..row },
        SettleRow {
            bucket: (bucket + 1) % 64,
            ..row
        },
        SettleRow {
            event_id: Uuid::from_u128(1),
            ..row
        },
    ] {
        ensure!(store.settle(vec![stranger]).await? == 0, "{stranger:?}");
    }
    ensure!(store.ids_above(&owner, bucket, 0).await? == Some(vec![id]));
    Ok(())
}

/// A settle of nothing new makes no mark, so the count must be right.
pub async fn a_settle_counts_what_was_not_published_yet(store: &mut impl Subject) -> anyhow::Result<()> {
    let owner = store.take(1).await?;
    let rows = store.committed(&["K", "K", "K"]).await?;
    ensure!(store.settle(vec![rows[0]]).await? == 1);
    ensure!(store.settle(rows.clone()).await? == 2);
    ensure!(store.settle(rows.clone()).await? == 0);
    ensure!(store.ids_above(&owner, rows[0].bucket, 0).await? == Some(Vec::new()));
    // and whoever holds the bucket: what is acknowledged is on its topic
    let next = store.committed(&["K"]).await?[0];
    store.take_over(2).await?;
    ensure!(store.settle(vec![next]).await? == 1);
    Ok(())
}

/// An acknowledged row is published whatever was thought of it meanwhile.
pub async fn a_settled_side_or_failed_row_is_back_in_lane_0(store: &mut impl Subject) -> anyhow::Result<()> {
    // given
    let owner = store.take(1).await?;
    let rows = store.committed(&["K", "K"]).await?;
    store.change_row(&owner, rows[0], fail()).await?;
    store.change_row(&owner, rows[1], ChangeKind::Park).await?;
    // when
    ensure!(store.settle(rows.clone()).await? == 2);
    // then nothing of them waits or halts
    let looked = store
        .look(LookRequest {
            halt: Halt::Everywhere,
            ..owner.looks(rows[0].bucket)
        })
        .await?;
    ensure!(looked.rows.is_empty() && looked.halted.is_empty());
    ensure!(store.ids_above(&owner, rows[0].bucket, 0).await? == Some(Vec::new()));
    Ok(())
}

/// A transaction that has ended, or never inserted, holds none.
pub async fn a_writer_that_inserted_holds_a_lock_until_it_ends(store: &mut impl Subject) -> anyhow::Result<()> {
    // given
    let (idle, busy) = (store.begin().await?, store.begin().await?);
    let (idle_xid, busy_xid) = (store.draw_xid(idle).await?, store.draw_xid(busy).await?);
    let both = vec![idle_xid, busy_xid];
    ensure!(store.locks(both.clone()).await?.1 == both);
    // when
    let row = store.insert(busy, TOPIC, "K").await?;
    // then
    ensure!(store.locks(both.clone()).await? == (row.id, vec![idle_xid]));
    // when
    store.commit(busy).await?;
    store.roll_back(idle).await?;
    // then
    ensure!(store.locks(both.clone()).await?.1 == both);
    Ok(())
}
