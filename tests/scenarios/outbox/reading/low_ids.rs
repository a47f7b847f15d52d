//! From where a successor reads.

use outbox_publisher::domain::rules::Rule;

use super::{Seq, commit_and_follow, judge};
use crate::outbox::fixture::{Keys, Outbox, Writer};
use crate::outbox::rig::{Kind, Rig};

async fn first_reads_without_a_mark(outbox: &Outbox, off: Option<Rule>) -> anyhow::Result<Seq> {
    let mut rig = Rig::waiting(outbox, off).await?;
    rig.hold(Kind::Control);
    rig.hold(Kind::Settle);
    let (mut first, mut second) = (outbox.writer().await?, outbox.writer().await?);
    second.begin_with_xid().await?;
    first.begin().await?;
    first.insert("K", "a").await?;
    second.insert(&Keys::find().beside, "x").await?;
    second.commit().await?; // completed with the lower xid: no snapshot names the first
    rig.unhold(Kind::Read).await?;
    rig.until_sent("x").await?;
    rig.more(Kind::Read, 2).await?;
    first.commit().await?;
    second.insert("K", "b").await?;
    rig.until_sent("b").await?;
    for kind in [Kind::Mark, Kind::Control, Kind::Settle] {
        rig.unhold(kind).await?;
    }
    rig.go_round().await?;
    Ok(judge(rig.sent()))
}

#[tokio::test]
async fn low_id_bounds_the_reads_of_a_tenancy_until_a_mark_is_complete() -> anyhow::Result<()> {
    let outbox = Outbox::alone("no_mark_yet", &[]).await?;
    assert_eq!(first_reads_without_a_mark(&outbox, None).await?, Seq::InOrder);
    let other = outbox.another("no_mark_no_bound").await?;
    let seen = first_reads_without_a_mark(&other, Some(Rule::BoundBeforeMark)).await?;
    assert_eq!(seen, Seq::Lost);
    outbox.finish().await
}

/// The owner stores its low id and is gone; another goes on from there.
async fn succeed(outbox: &Outbox, owner: Rig, mut first: Writer) -> anyhow::Result<Seq> {
    drop(owner);
    outbox.owners_are_gone().await?;
    let mut successor = Rig::new(outbox).await?;
    let mut second = outbox.writer().await?;
    commit_and_follow(&mut successor, &mut first, &mut second).await
}

async fn low_id_between_a_read_and_a_mark(outbox: &Outbox, off: Option<Rule>) -> anyhow::Result<Seq> {
    let mut rig = Rig::waiting(outbox, off).await?;
    rig.unhold(Kind::Read).await?;
    rig.more(Kind::Read, 1).await?;
    rig.hold(Kind::Read);
    let mut first = outbox.writer().await?;
    first.begin().await?;
    first.insert("K", "a").await?;
    rig.wants(Kind::Mark).await?;
    rig.unhold(Kind::Mark).await?;
    rig.more(Kind::Control, 2).await?;
    succeed(outbox, rig, first).await
}

#[tokio::test]
async fn low_id_stays_below_the_mark_of_the_last_read() -> anyhow::Result<()> {
    let outbox = Outbox::alone("low_id_last_mark", &[]).await?;
    assert_eq!(low_id_between_a_read_and_a_mark(&outbox, None).await?, Seq::InOrder);
    let other = outbox.another("low_id_newest_mark").await?;
    let seen = low_id_between_a_read_and_a_mark(&other, Some(Rule::LowBelowLastMark)).await?;
    assert_eq!(seen, Seq::Lost);
    outbox.finish().await
}

async fn low_id_over_a_running_writer(outbox: &Outbox, off: Option<Rule>) -> anyhow::Result<Seq> {
    let mut rig = Rig::without(outbox, off).await?;
    let (mut first, mut second) = (outbox.writer().await?, outbox.writer().await?);
    first.begin().await?;
    first.insert("K", "a").await?;
    second.insert(&Keys::find().beside, "x").await?;
    rig.until_sent("x").await?;
    rig.go_round().await?;
    rig.more(Kind::Control, 2).await?;
    succeed(outbox, rig, first).await
}

#[tokio::test]
async fn low_id_stays_below_every_floor() -> anyhow::Result<()> {
    let outbox = Outbox::alone("low_id_floors", &[]).await?;
    assert_eq!(low_id_over_a_running_writer(&outbox, None).await?, Seq::InOrder);
    let other = outbox.another("low_id_no_floors").await?;
    let seen = low_id_over_a_running_writer(&other, Some(Rule::LowBelowFloors)).await?;
    assert_eq!(seen, Seq::Lost);
    outbox.finish().await
}
