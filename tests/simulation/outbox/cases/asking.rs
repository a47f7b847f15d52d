//! What a read sees, and what its snapshot says.

use anyhow::ensure;
use outbox_publisher::ports::{ChangeKind, ReadBucket, ReadRequest};

use crate::outbox::subject::{Fixture, Subject, TOPIC, bucket_of, ids, read};

/// Open, rolled back, settled and parked rows are not there.
pub async fn a_read_sees_what_is_committed_in_id_order(store: &mut impl Subject) -> anyhow::Result<()> {
    // given two transactions of one key, the second of which commits first
    let bucket = bucket_of("K");
    let owner = store.take(1).await?;
    let (open, undone) = (store.begin().await?, store.begin().await?);
    let late = store.insert(open, TOPIC, "K").await?;
    store.insert(undone, TOPIC, "K").await?;
    store.roll_back(undone).await?;
    let rows = store.committed(&["K", "K", "K"]).await?;
    ensure!(store.ids_above(&owner, bucket, 0).await? == Some(rows.iter().map(|row| row.id).collect()));
    // when
    store.commit(open).await?;
    store.settle(vec![rows[0]]).await?;
    store.change_row(&owner, rows[1], ChangeKind::Park).await?;
    // then
    ensure!(late.id < rows[0].id);
    ensure!(store.ids_above(&owner, bucket, 0).await? == Some(vec![late.id, rows[2].id]));
    Ok(())
}

/// Each bucket has bounds of its own; one with limit 0 is covered and gives nothing.
pub async fn a_read_keeps_to_bound_low_id_and_limit(store: &mut impl Subject) -> anyhow::Result<()> {
    // given
    let owner = store.take(1).await?;
    let rows = store.committed(&["K", "K", "K", "K"]).await?;
    let bucket = bucket_of("K");
    let all = owner.reads(bucket);
    let (low, limit, bound) = (rows[1].id, 1, rows[2].id);
    for (asked, expected) in [
        (ReadBucket { bound, ..all.clone() }, vec![rows[3].id]),
        (ReadBucket { low, ..all.clone() }, vec![rows[2].id, rows[3].id]),
        (ReadBucket { limit, ..all.clone() }, vec![rows[0].id]),
        (ReadBucket { limit: 0, ..all }, vec![]),
    ] {
        // when
        let answer = store.read(read(vec![asked.clone()], Vec::new())).await?;
        // then
        ensure!(ids(&answer) == expected, "{asked:?}: {:?}", ids(&answer));
        ensure!(answer.owned.contains(&bucket) && answer.sample == rows[3].id);
    }
    Ok(())
}

/// A zombie's read returns nothing of the bucket, not even that it is empty.
pub async fn a_read_of_an_older_epoch_sees_nothing(store: &mut impl Subject) -> anyhow::Result<()> {
    // given
    let zombie = store.take(1).await?;
    let row = store.committed(&["K"]).await?[0];
    ensure!(store.ids_above(&zombie, row.bucket, 0).await? == Some(vec![row.id]));
    // when
    let successor = store.take_over(2).await?;
    // then
    ensure!(store.ids_above(&zombie, row.bucket, 0).await?.is_none());
    ensure!(store.ids_above(&successor, row.bucket, 0).await? == Some(vec![row.id]));
    Ok(())
}

/// The statement itself finds out whether the transaction has ended; its low id stays the lowest bound.
pub async fn a_read_goes_down_to_the_floor_of_a_transaction_that_ended(store: &mut impl Subject) -> anyhow::Result<()> {
    // given a transaction that has inserted, and a cursor above its row
    let owner = store.take(1).await?;
    let writer = store.begin().await?;
    let late = store.insert(writer, TOPIC, "K").await?;
    let xid = store.draw_xid(writer).await?;
    let fresh = store.committed(&["K"]).await?[0];
    let asked = ReadBucket {
        bound: fresh.id,
        ..owner.reads(fresh.bucket)
    };
    let floors = vec![(xid, 0)];
    // when it runs, then nothing is read again
    ensure!(ids(&store.read(read(vec![asked.clone()], floors.clone())).await?).is_empty());
    // when it has ended
    store.commit(writer).await?;
    // then everything above its floor is
    let found = ids(&store.read(read(vec![asked.clone()], floors.clone())).await?);
    ensure!(found == [late.id, fresh.id], "{found:?}");
    let above_low = ReadBucket { low: late.id, ..asked };
    ensure!(ids(&store.read(read(vec![above_low], floors)).await?) == [fresh.id]);
    Ok(())
}

/// At least one row is returned, and the bucket whose rows were left out is named.
pub async fn a_read_over_its_bytes_says_what_it_cut(store: &mut impl Subject) -> anyhow::Result<()> {
    // given
    let owner = store.take(1).await?;
    let rows = store.committed(&["K", "K", "K", "K"]).await?;
    let bucket = rows[0].bucket;
    // when
    let answer = store
        .read(ReadRequest {
            bytes_max: 1,
            ..read(vec![owner.reads(bucket)], Vec::new())
        })
        .await?;
    // then what was returned is the beginning
    let found = ids(&answer);
    ensure!(!found.is_empty() && found.len() < rows.len(), "{found:?}");
    ensure!(found.iter().zip(&rows).all(|(id, row)| *id == row.id));
    ensure!(answer.cut.contains(&bucket));
    Ok(())
}

/// A transaction without an id is in no snapshot.
pub async fn a_snapshot_names_running_transactions_below_the_last_completed(
    store: &mut impl Subject,
) -> anyhow::Result<()> {
    // given
    let owner = store.take(1).await?;
    let running = store.begin().await?;
    let xid = store.draw_xid(running).await?;
    store.committed(&["K"]).await?;
    let everything = read(vec![owner.reads(0)], Vec::new());
    // then
    let snapshot = store.read(everything.clone()).await?.snapshot;
    ensure!(snapshot.running.contains(&xid) && snapshot.xmax > xid && !snapshot.shows_ended(xid));
    // when it has ended
    store.roll_back(running).await?;
    // then
    ensure!(store.read(everything).await?.snapshot.shows_ended(xid));
    Ok(())
}
