//! Answers that are lost, connections that are cut, owners that died with their leases held.

use anyhow::ensure;
use outbox_publisher::ports::{ChangeAnswer, ControlRequest, Held};

use crate::outbox::subject::{Fixture, Subject, TOPIC, control, retry};

/// Its rows are not there, its locks are free, and snapshots name it no more.
pub async fn a_writer_that_is_cut_off_leaves_nothing_and_holds_nobody_up(
    store: &mut impl Subject,
) -> anyhow::Result<()> {
    // given
    let owner = store.take(1).await?;
    let writer = store.begin().await?;
    let xid = store.draw_xid(writer).await?;
    let row = store.insert(writer, TOPIC, "K").await?;
    ensure!(store.locks(vec![xid]).await?.1.is_empty());
    // when
    store.cut(writer).await?;
    let next = store.committed(&["K"]).await?[0];
    // then
    ensure!(next.id > row.id);
    ensure!(store.ids_above(&owner, row.bucket, 0).await? == Some(vec![next.id]));
    ensure!(store.locks(vec![xid]).await?.1 == [xid]);
    Ok(())
}

/// Whoever makes it again, after a take-over as well.
pub async fn a_settle_whose_answer_was_lost_is_made_again_and_changes_nothing_more(
    store: &mut impl Subject,
) -> anyhow::Result<()> {
    store.take(1).await?;
    let rows = store.committed(&["K", "K"]).await?;
    store.settle(rows.clone()).await?; // nobody hears it
    ensure!(store.settle(rows.clone()).await? == 0);
    let successor = store.take_over(2).await?;
    ensure!(store.settle(rows.clone()).await? == 0);
    ensure!(store.ids_above(&successor, rows[0].bucket, 0).await? == Some(Vec::new()));
    Ok(())
}

/// An owner that has lost its connection begins anew: what it makes again under the epoch before is fenced.
pub async fn a_retry_whose_answer_was_lost_counts_once(store: &mut impl Subject) -> anyhow::Result<()> {
    // given
    let before = store.take(1).await?;
    let row = store.committed(&["K"]).await?[0];
    store.change_row(&before, row, retry()).await?; // nobody hears it
    // when
    let after = store.take(1).await?;
    let again = store.change_row(&before, row, retry()).await?;
    // then
    ensure!(again == ChangeAnswer::NotOwner, "{again:?}");
    let looked = store.look(after.looks(row.bucket)).await?;
    ensure!(
        looked.rows.len() == 1 && looked.rows[0].event.attempts == 1,
        "{looked:?}"
    );
    Ok(())
}

/// What it took the first time it may not use: it does not know the epoch.
pub async fn a_take_over_whose_answer_was_lost_is_made_again_under_a_higher_epoch(
    store: &mut impl Subject,
) -> anyhow::Result<()> {
    let unheard = store.take(1).await?;
    let heard = store.take(1).await?;
    ensure!(heard.held.len() == 64);
    for (bucket, held) in &heard.held {
        ensure!(held.epoch > unheard.held[bucket].epoch, "bucket {bucket}");
    }
    ensure!(store.control(2, control(64)).await?.acquired.is_empty());
    ensure!(store.ids_above(&unheard, 0, 0).await?.is_none());
    Ok(())
}

/// Not before, and not further than what it has stored.
pub async fn an_owner_that_died_with_its_lease_is_succeeded_at_its_stored_low_id_when_the_lease_is_over(
    store: &mut impl Subject,
) -> anyhow::Result<()> {
    // given an owner that has stored a low id, and dies
    let dead = store.take(1).await?;
    let renewal = ControlRequest {
        renew: dead.held.values().map(|held| Held { low_id: 7, ..*held }).collect(),
        ..control(0)
    };
    store.control(1, renewal).await?;
    // when its lease lasts, then nobody takes it
    ensure!(store.control(2, control(64)).await?.acquired.is_empty());
    // when it is over
    let successor = store.take_over(2).await?;
    // then
    ensure!(successor.held.len() == 64);
    for (bucket, held) in &successor.held {
        ensure!(held.low_id == 7 && held.epoch > dead.held[bucket].epoch, "{held:?}");
    }
    Ok(())
}
