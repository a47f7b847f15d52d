//! Blocked keys: what waits in the side lane is not overtaken from lane 0.

use outbox_publisher::domain::rules::Rule;
use outbox_publisher::ports::ChangeKind;

use crate::outbox::fixture::Outbox;
use crate::outbox::rig::{Kind, Rig};
use crate::outbox::store::{Owner, Row};

async fn take_over_with_a_parked_head(outbox: &Outbox, off: Option<Rule>) -> anyhow::Result<Vec<String>> {
    // given a head that its owner has parked before it was gone
    let mut writer = outbox.writer().await?;
    writer.insert("K", "head").await?;
    let head = Row::find(outbox, "head").await?;
    Owner::take_over(outbox).await?.change(head, ChangeKind::Park).await?;
    writer.insert("K", "next").await?;
    outbox.owners_are_gone().await?;
    // when the successor has read lane 0 and not yet seen the side lane
    let mut rig = Rig::holding(outbox, off, &[Kind::Look]).await?;
    rig.more(Kind::Read, 3).await?;
    rig.unhold(Kind::Look).await?;
    rig.until_sent("head").await?;
    rig.until_sent("next").await?;
    rig.go_round().await?;
    Ok(rig.sent().to_vec())
}

#[tokio::test]
async fn new_owner_sends_nothing_before_it_has_seen_the_side_lane() -> anyhow::Result<()> {
    let outbox = Outbox::new("look_first").await?;
    assert_eq!(take_over_with_a_parked_head(&outbox, None).await?, ["head", "next"]);
    outbox.finish().await?;
    let outbox = Outbox::new("look_late").await?;
    let sent = take_over_with_a_parked_head(&outbox, Some(Rule::LookBeforeProducing)).await?;
    assert_eq!(sent, ["next", "head"]);
    outbox.finish().await
}

async fn look_begun_before_a_park(outbox: &Outbox, off: Option<Rule>) -> anyhow::Result<Vec<String>> {
    // given a head that the broker refuses
    let mut rig = Rig::without(outbox, off).await?;
    let mut writer = outbox.writer().await?;
    rig.refuse("head", true);
    rig.hold(Kind::Change);
    writer.insert("K", "head").await?;
    rig.wants(Kind::Change).await?;
    // when a look is older than the commit that moves it to the side lane
    rig.hold(Kind::Look);
    rig.wants(Kind::Look).await?;
    rig.carry_out(Kind::Look).await?;
    rig.unhold(Kind::Change).await?;
    rig.answer(Kind::Look);
    writer.insert("K", "next").await?;
    rig.more(Kind::Read, 4).await?;
    // then the key stays blocked until a later look
    rig.refuse("head", false);
    rig.unhold(Kind::Look).await?;
    rig.until_sent("head").await?;
    rig.until_sent("next").await?;
    rig.go_round().await?;
    Ok(rig.sent().to_vec())
}

#[tokio::test]
async fn look_begun_before_a_park_does_not_free_its_key() -> anyhow::Result<()> {
    let outbox = Outbox::new("look_counts").await?;
    assert_eq!(look_begun_before_a_park(&outbox, None).await?, ["head", "next"]);
    outbox.finish().await?;
    let outbox = Outbox::new("look_counted_early").await?;
    let sent = look_begun_before_a_park(&outbox, Some(Rule::LookAfterPark)).await?;
    assert_eq!(sent, ["next", "head"]);
    outbox.finish().await
}

#[tokio::test]
async fn redriven_head_is_sent_while_its_owner_runs() -> anyhow::Result<()> {
    // given a FAILED row, and its followers published behind it
    let outbox = Outbox::new("redrive_live").await?;
    let mut writer = outbox.writer().await?;
    writer.insert("K", "head").await?;
    let head = Row::find(&outbox, "head").await?;
    Owner::take_over(&outbox)
        .await?
        .change(head, crate::outbox::store::fail())
        .await?;
    writer.insert("K", "next").await?;
    outbox.owners_are_gone().await?;
    let mut rig = Rig::new(&outbox).await?;
    rig.until_sent("next").await?;
    // when an operator puts it back
    sqlx::query("select outbox_redrive($1)")
        .bind(head.event_id)
        .execute(&mut writer.connection)
        .await?;
    // then the next look finds it
    rig.until_sent("head").await?;
    rig.go_round().await?;
    assert_eq!(rig.sent(), ["next", "head"]);
    outbox.finish().await
}
