//! Who holds a bucket.

use anyhow::ensure;
use outbox_publisher::ports::{ControlRequest, Held};

use crate::outbox::subject::{Fixture, Subject, control};

/// The successor of an owner whose lease ran out has a higher epoch, and the first renews no more.
pub async fn a_take_over_raises_the_epoch(store: &mut impl Subject) -> anyhow::Result<()> {
    // given
    let first = store.take(1).await?;
    ensure!(first.held.len() == 64 && first.held.values().all(|held| held.low_id == 0));
    // when
    let second = store.take_over(2).await?;
    // then
    ensure!(second.held.len() == 64);
    for (bucket, held) in &second.held {
        ensure!(held.epoch > first.held[bucket].epoch, "bucket {bucket}");
    }
    let renewal = ControlRequest {
        renew: first.held.values().map(|held| Held { low_id: 9, ..*held }).collect(),
        ..control(0)
    };
    ensure!(store.control(1, renewal).await?.kept.is_empty());
    ensure!(store.take_over(1).await?.held.values().all(|held| held.low_id == 0));
    Ok(())
}

/// Buckets of a lease that lasts are nobody else's, and not more are taken than were asked for.
pub async fn a_lease_that_lasts_is_not_taken(store: &mut impl Subject) -> anyhow::Result<()> {
    ensure!(store.control(1, control(40)).await?.acquired.len() == 40);
    ensure!(store.control(2, control(64)).await?.acquired.len() == 24);
    ensure!(store.control(2, control(0)).await?.instances == 2);
    Ok(())
}

/// A bucket that is given back is free at once.
pub async fn what_is_given_back_goes_to_the_next_owner_with_its_low_id(store: &mut impl Subject) -> anyhow::Result<()> {
    // given
    let first = store.take(1).await?;
    // when
    let given = Held {
        low_id: 5,
        ..first.held[&3]
    };
    let release = ControlRequest {
        release: vec![given],
        ..control(0)
    };
    store.control(1, release).await?;
    // then
    let taken = store.control(2, control(64)).await?.acquired;
    ensure!(taken.len() == 1 && taken[0].bucket == 3, "{taken:?}");
    ensure!(taken[0].low_id == 5 && taken[0].epoch > given.epoch, "{taken:?}");
    Ok(())
}

/// What an owner renewed with is where its successor begins.
pub async fn a_renewal_stores_the_low_id(store: &mut impl Subject) -> anyhow::Result<()> {
    // given
    let first = store.take(1).await?;
    let renewal = ControlRequest {
        renew: first.held.values().map(|held| Held { low_id: 9, ..*held }).collect(),
        ..control(0)
    };
    // when
    let answer = store.control(1, renewal).await?;
    // then
    ensure!(answer.kept.len() == 64 && answer.acquired.is_empty());
    ensure!(store.take_over(2).await?.held.values().all(|held| held.low_id == 9));
    Ok(())
}

/// An owner that lost its connection takes its own buckets under a new epoch, though its leases last.
pub async fn own_leases_of_a_lost_connection_begin_anew(store: &mut impl Subject) -> anyhow::Result<()> {
    let before = store.take(1).await?;
    let after = store.take(1).await?;
    ensure!(after.held.len() == 64);
    ensure!(
        after
            .held
            .values()
            .all(|held| held.epoch > before.held[&held.bucket].epoch)
    );
    Ok(())
}

/// What was learned before a recovery is not stored behind it, and the answer says why.
pub async fn a_server_of_another_life_moves_no_lease(store: &mut impl Subject) -> anyhow::Result<()> {
    // given
    let owner = store.take(1).await?;
    let life = store.control(1, control(0)).await?.life;
    let known = ControlRequest {
        life: Some(life),
        renew: owner.held.values().map(|held| Held { low_id: 9, ..*held }).collect(),
        ..control(64)
    };
    // when
    store.recover().await?;
    let answer = store.control(1, known).await?;
    // then
    ensure!(answer.life != life);
    ensure!(answer.kept.is_empty() && answer.acquired.is_empty());
    let anew = ControlRequest {
        life: Some(answer.life),
        ..control(64)
    };
    let taken = store.control(1, anew).await?.acquired;
    ensure!(taken.len() == 64 && taken.iter().all(|held| held.low_id == 0));
    Ok(())
}
