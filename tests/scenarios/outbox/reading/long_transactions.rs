//! Transactions that stay open: which of them a read has to go back for.

use outbox_publisher::domain::rules::Rule;

use super::{Seq, commit_and_follow, judge};
use crate::outbox::fixture::{Keys, Outbox};
use crate::outbox::rig::{Kind, Rig};

/// The least low id that is stored.
const LOW_ID: &str = "select min(low_id) from outbox_leases";

#[tokio::test]
async fn long_transaction_that_never_wrote_here_holds_nothing_up() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::new("long_bystander").await?;
    let (mut long, mut second) = (outbox.writer().await?, outbox.writer().await?);
    long.begin_with_xid().await?;
    let mut rig = Rig::new(&outbox).await?;
    rig.hold(Kind::Locks);
    for n in 1..=3 {
        second.insert("K", &format!("x{n}")).await?;
    }
    rig.until_sent("x3").await?;
    // when nobody looks whether it holds a lock on the outbox
    rig.wants(Kind::Locks).await?;
    rig.more(Kind::Control, 3).await?;
    // then everything waits for its end
    assert_eq!(outbox.number(LOW_ID).await?, 0);
    // when somebody looks
    rig.unhold(Kind::Locks).await?;
    rig.more(Kind::Control, 3).await?;
    // then its floor has risen, and the drained leaves can go
    assert_eq!(outbox.number(LOW_ID).await?, 3);
    // and what it writes in the end keeps its order
    long.insert("K", "a").await?;
    assert_eq!(commit_and_follow(&mut rig, &mut long, &mut second).await?, Seq::InOrder);
    outbox.finish().await
}

#[tokio::test]
async fn long_transaction_that_wrote_early_is_waited_for() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::new("long_writer").await?;
    let (mut long, mut second) = (outbox.writer().await?, outbox.writer().await?);
    let mut rig = Rig::new(&outbox).await?;
    long.begin().await?;
    let early = long.insert("K", "a").await?;
    second.insert(&Keys::find().beside, "x").await?;
    rig.until_sent("x").await?;
    // when its locks were looked at
    rig.more(Kind::Locks, 2).await?;
    rig.more(Kind::Control, 2).await?;
    // then
    assert!(outbox.number(LOW_ID).await? < early);
    assert_eq!(commit_and_follow(&mut rig, &mut long, &mut second).await?, Seq::InOrder);
    outbox.finish().await
}

async fn lock_look_up_behind_a_commit(outbox: &Outbox, off: Option<Rule>) -> anyhow::Result<Seq> {
    let (mut long, mut second) = (outbox.writer().await?, outbox.writer().await?);
    let mut rig = Rig::without(outbox, off).await?;
    long.begin().await?;
    long.insert("K", "a").await?;
    second.insert(&Keys::find().beside, "x").await?;
    rig.until_sent("x").await?;
    rig.hold(Kind::Locks);
    rig.wants(Kind::Locks).await?;
    long.commit().await?;
    rig.unhold(Kind::Locks).await?; // a transaction that has ended holds no lock either
    second.insert("K", "b").await?;
    rig.until_sent("b").await?;
    rig.go_round().await?;
    Ok(judge(rig.sent()))
}

#[tokio::test]
async fn look_at_locks_counts_only_while_the_transaction_is_still_named() -> anyhow::Result<()> {
    let outbox = Outbox::alone("locks", &[]).await?;
    assert_eq!(lock_look_up_behind_a_commit(&outbox, None).await?, Seq::InOrder);
    let other = outbox.another("locks_believed").await?;
    let seen = lock_look_up_behind_a_commit(&other, Some(Rule::SampleBeforeLookup)).await?;
    assert_eq!(seen, Seq::Lost);
    outbox.finish().await
}
