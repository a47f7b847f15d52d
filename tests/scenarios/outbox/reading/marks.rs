//! What a mark is, and for which reads it counts.

use outbox_publisher::domain::rules::Rule;

use super::{Seq, commit_and_follow};
use crate::outbox::fixture::{Keys, Outbox};
use crate::outbox::rig::{Kind, Marks, Rig};

async fn mark_over_an_unnamed_writer(outbox: &Outbox, marks: Marks) -> anyhow::Result<Seq> {
    let mut rig = Rig::new(outbox).await?;
    rig.mark(marks);
    rig.hold(Kind::Control); // its commit would have the snapshots name the writer
    let (mut first, mut second) = (outbox.writer().await?, outbox.writer().await?);
    first.begin().await?;
    first.insert("K", "a").await?;
    rig.more(Kind::Mark, 1).await?;
    rig.more(Kind::Read, 3).await?;
    second.insert(&Keys::find().beside, "x").await?;
    rig.until_sent("x").await?;
    rig.more(Kind::Read, 2).await?;
    commit_and_follow(&mut rig, &mut first, &mut second).await
}

#[tokio::test]
async fn mark_needs_a_transaction_of_our_own_behind_its_sample() -> anyhow::Result<()> {
    let outbox = Outbox::alone("marks", &[]).await?;
    assert_eq!(
        mark_over_an_unnamed_writer(&outbox, Marks::Rightly).await?,
        Seq::InOrder
    );
    // A snapshot names running transactions only below the last completed one: here it names nobody.
    let other = outbox.another("marks_sample_alone").await?;
    let seen = mark_over_an_unnamed_writer(&other, Marks::WithoutOwnTransaction).await?;
    assert_eq!(seen, Seq::Lost);
    outbox.finish().await
}

async fn settle_of_nothing(outbox: &Outbox, is_believed: bool) -> anyhow::Result<Seq> {
    let mut rig = Rig::new(outbox).await?;
    if is_believed {
        rig.believe_idle_settles();
    }
    let (mut first, mut second) = (outbox.writer().await?, outbox.writer().await?);
    rig.keep_reports();
    second.insert(&Keys::find().beside, "x0").await?;
    rig.until_sent("x0").await?;
    rig.hold(Kind::Control);
    rig.hold(Kind::Mark);
    // Somebody else, an owner from before, has written down that x0 is on its topic.
    outbox
        .run(
            "update outbox_events set status = 'PUBLISHED', published_at = now() where id = $1",
            1,
        )
        .await?;
    first.begin().await?;
    first.insert("K", "a").await?;
    rig.more(Kind::Read, 2).await?;
    rig.report();
    rig.more(Kind::Settle, 1).await?;
    rig.more(Kind::Read, 3).await?;
    second.insert(&Keys::find().beside, "x").await?;
    rig.until_sent("x").await?;
    rig.more(Kind::Read, 2).await?;
    rig.unhold(Kind::Mark).await?;
    rig.unhold(Kind::Control).await?;
    commit_and_follow(&mut rig, &mut first, &mut second).await
}

#[tokio::test]
async fn settle_that_changed_no_row_is_no_mark() -> anyhow::Result<()> {
    let outbox = Outbox::alone("idle_settle", &[]).await?;
    assert_eq!(settle_of_nothing(&outbox, false).await?, Seq::InOrder);
    let other = outbox.another("idle_settle_believed").await?;
    assert_eq!(settle_of_nothing(&other, true).await?, Seq::Lost);
    outbox.finish().await
}

async fn mark_during_a_read(outbox: &Outbox, off: Option<Rule>) -> anyhow::Result<Seq> {
    let mut rig = Rig::waiting(outbox, off).await?;
    let (mut first, mut second) = (outbox.writer().await?, outbox.writer().await?);
    rig.wants(Kind::Read).await?;
    rig.wants(Kind::Mark).await?;
    rig.carry_out(Kind::Read).await?; // its snapshot is older than the writer
    first.begin().await?;
    first.insert("K", "a").await?;
    rig.unhold(Kind::Mark).await?; // its sample covers the writer's id
    rig.unhold(Kind::Read).await?;
    second.insert(&Keys::find().beside, "x").await?;
    rig.until_sent("x").await?;
    rig.more(Kind::Read, 3).await?;
    commit_and_follow(&mut rig, &mut first, &mut second).await
}

#[tokio::test]
async fn mark_completed_during_a_read_does_not_count_for_it() -> anyhow::Result<()> {
    let outbox = Outbox::alone("mark_during_read", &[]).await?;
    assert_eq!(mark_during_a_read(&outbox, None).await?, Seq::InOrder);
    let other = outbox.another("mark_during_read_counted").await?;
    assert_eq!(mark_during_a_read(&other, Some(Rule::MarkBeforeRead)).await?, Seq::Lost);
    outbox.finish().await
}

async fn read_older_than_its_settle(outbox: &Outbox, off: Option<Rule>) -> anyhow::Result<Vec<String>> {
    let mut rig = Rig::without(outbox, off).await?;
    rig.hold(Kind::Mark);
    rig.hold(Kind::Settle);
    outbox.writer().await?.insert("K", "a").await?;
    rig.until_sent("a").await?;
    rig.wants(Kind::Settle).await?;
    rig.hold(Kind::Read);
    rig.wants(Kind::Read).await?;
    rig.carry_out(Kind::Read).await?; // finds it PENDING
    rig.unhold(Kind::Settle).await?;
    rig.unhold(Kind::Read).await?;
    rig.unhold(Kind::Mark).await?;
    rig.go_round().await?;
    Ok(rig.sent().to_vec())
}

#[tokio::test]
async fn row_stays_in_hand_until_a_read_begun_after_its_settle() -> anyhow::Result<()> {
    let outbox = Outbox::alone("ring", &[]).await?;
    assert_eq!(read_older_than_its_settle(&outbox, None).await?, ["a"]);
    let other = outbox.another("ring_forgets").await?;
    let sent = read_older_than_its_settle(&other, Some(Rule::RingUntilRead)).await?;
    assert_eq!(sent, ["a", "a"], "a duplicate without any fault");
    outbox.finish().await
}
