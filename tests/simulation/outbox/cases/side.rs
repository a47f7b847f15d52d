//! The side lane: what moves rows there, and what a look sees.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use outbox_publisher::ports::{ChangeAnswer, ChangeKind, LookAnswer, LookRequest, SettleRow};
use outbox_publisher::relay::Halt;
use uuid::Uuid;

use crate::outbox::subject::{Fixture, Subject, TOPIC, fail, neighbours, retry};

fn ids(answer: &LookAnswer) -> Vec<i64> {
    answer.rows.iter().map(|row| row.event.id).collect()
}

/// Only the newest epoch retries, parks and fails.
pub async fn a_change_of_an_older_epoch_changes_nothing(store: &mut impl Subject) -> anyhow::Result<()> {
    // given
    let zombie = store.take(1).await?;
    let row = store.committed(&["K"]).await?[0];
    let successor = store.take_over(2).await?;
    for kind in [retry(), ChangeKind::Park, fail()] {
        // when, then
        ensure!(store.change_row(&zombie, row, kind).await? == ChangeAnswer::NotOwner);
    }
    ensure!(store.ids_above(&successor, row.bucket, 0).await? == Some(vec![row.id]));
    Ok(())
}

/// Of the rows named, those that are PENDING are changed, and the answer says which.
pub async fn a_change_touches_pending_rows_only(store: &mut impl Subject) -> anyhow::Result<()> {
    // given
    let owner = store.take(1).await?;
    let rows = store.committed(&["K", "K", "K"]).await?;
    store.settle(vec![rows[0]]).await?;
    let stranger = SettleRow {
        event_id: Uuid::from_u128(1),
        ..rows[1]
    };
    // when
    let parks = [rows[0], stranger, rows[2]].map(|row| (row, ChangeKind::Park));
    let answer = store.change_rows(&owner, parks.to_vec()).await?;
    // then
    ensure!(answer == ChangeAnswer::Changed(vec![rows[2].id]), "{answer:?}");
    ensure!(store.ids_above(&owner, rows[0].bucket, 0).await? == Some(vec![rows[1].id]));
    Ok(())
}

/// A parked row waits behind another: it is due, and has failed at nothing. All of it in one statement.
pub async fn a_retry_counts_an_attempt_and_waits_and_a_park_does_neither(
    store: &mut impl Subject,
) -> anyhow::Result<()> {
    // given
    let owner = store.take(1).await?;
    let rows = store.committed(&["K", "K", "K"]).await?;
    // when
    let changes = vec![(rows[0], retry()), (rows[1], ChangeKind::Park), (rows[2], fail())];
    let answer = store.change_rows(&owner, changes).await?;
    // then
    let ChangeAnswer::Changed(changed) = answer else {
        anyhow::bail!("{answer:?}");
    };
    ensure!(changed.into_iter().collect::<BTreeSet<_>>() == rows.iter().map(|row| row.id).collect());
    let looked = store.look(owner.looks(rows[0].bucket)).await?;
    let [head, follower] = &looked.rows[..] else {
        anyhow::bail!("{looked:?}");
    };
    ensure!(
        head.event.attempts == 1 && head.due_in > Duration::from_secs(50),
        "{head:?}"
    );
    ensure!(
        follower.event.attempts == 0 && follower.due_in.is_zero(),
        "{follower:?}"
    );
    Ok(())
}

/// Whatever the order in which rows came there.
pub async fn a_look_shows_lane_1_in_id_order(store: &mut impl Subject) -> anyhow::Result<()> {
    let owner = store.take(1).await?;
    let rows = store.committed(&["K", "K", "K"]).await?;
    for row in [rows[2], rows[0]] {
        store.change_row(&owner, row, ChangeKind::Park).await?;
    }
    let looked = store.look(owner.looks(rows[0].bucket)).await?;
    ensure!(ids(&looked) == [rows[0].id, rows[2].id], "{looked:?}");
    ensure!(looked.owned.contains(&rows[0].bucket) && looked.cut.is_empty() && looked.upto.is_empty());
    Ok(())
}

/// As a read's.
pub async fn a_look_of_an_older_epoch_sees_nothing(store: &mut impl Subject) -> anyhow::Result<()> {
    let zombie = store.take(1).await?;
    let row = store.committed(&["K"]).await?[0];
    store.change_row(&zombie, row, ChangeKind::Park).await?;
    let successor = store.take_over(2).await?;
    let looked = store.look(zombie.looks(row.bucket)).await?;
    ensure!(looked.owned.is_empty() && looked.rows.is_empty());
    ensure!(ids(&store.look(successor.looks(row.bucket)).await?) == [row.id]);
    Ok(())
}

/// Rows and lanes that were left out are not taken for absent: their key would be freed.
pub async fn a_look_says_which_lanes_it_cut_and_how_far_it_came(store: &mut impl Subject) -> anyhow::Result<()> {
    // given two parked rows of each of three keys
    let owner = store.take(1).await?;
    let keys = neighbours(3);
    let mut all = BTreeSet::new();
    let mut bucket = 0;
    for key in &keys {
        for row in store.committed(&[key, key]).await? {
            store.change_row(&owner, row, ChangeKind::Park).await?;
            all.insert(row.id);
            bucket = row.bucket;
        }
    }
    // when one row of a lane fits
    let looked = store
        .look(LookRequest {
            rows_per_lane: 1,
            ..owner.looks(bucket)
        })
        .await?;
    // then every lane is cut
    ensure!(looked.rows.len() == 3 && looked.cut.len() == 3, "{looked:?}");
    // when one lane fits, and the next look begins behind it
    let mut found = BTreeSet::new();
    let mut request = LookRequest {
        lanes_max: 1,
        ..owner.looks(bucket)
    };
    for _ in 0..4 {
        let looked = store.look(request.clone()).await?;
        found.extend(ids(&looked));
        let Some(upto) = looked.upto.get(&bucket) else { break };
        ensure!(looked.rows.iter().all(|row| row.event.lane_hash <= *upto));
        request.buckets[0].after = Some(*upto);
    }
    // then all were seen
    ensure!(found == all, "{found:?} of {all:?}");
    Ok(())
}

/// The lowest FAILED row of a key, on topics that halt and in the buckets asked about.
pub async fn a_look_shows_the_failed_heads_that_halt(store: &mut impl Subject) -> anyhow::Result<()> {
    // given
    let owner = store.take(1).await?;
    let rows = store.committed(&["K", "K"]).await?;
    for row in &rows {
        store.change_row(&owner, *row, fail()).await?;
    }
    let bucket = rows[0].bucket;
    for (halt, is_shown) in [
        (Halt::Nowhere, false),
        (Halt::On(vec!["another".to_owned()]), false),
        (Halt::On(vec![TOPIC.to_owned()]), true),
        (Halt::Everywhere, true),
    ] {
        // when
        let request = LookRequest {
            halt: halt.clone(),
            ..owner.looks(bucket)
        };
        let looked = store.look(request).await?;
        // then
        let lowest = looked.halted.iter().map(|head| head.id).min();
        ensure!(lowest == is_shown.then_some(rows[0].id), "{halt:?}: {looked:?}");
        ensure!(looked.rows.is_empty());
    }
    ensure!(store.ids_above(&owner, bucket, 0).await? == Some(Vec::new()));
    Ok(())
}
