//! A Postgres that comes back without its newest commits.
//!
//! Settles, retries and parks commit asynchronously. A crash may take the last of them back, while the
//! publisher's memory still has them; so every bucket begins anew after it.

use harness::postgres::{Postgres, Stop};
use outbox_publisher::domain::rules::Rule;

use crate::outbox::fixture::{Keys, Outbox};
use crate::outbox::rig::{Kind, Rig};

/// Nothing is written to the log on its own for so long: only a commit that waits writes it.
const LAZY: [(&str, &str); 3] = [
    ("wal_writer_delay", "10s"),
    ("wal_writer_flush_after", "1GB"),
    ("fsync", "off"),
];

fn cannot_crash(test: &str) -> bool {
    let cannot = Postgres::local_binaries().is_none();
    if cannot {
        eprintln!("SKIPPED {test}: no local Postgres that could be killed");
    }
    cannot
}

/// Parks that are known to have committed, and are taken back.
async fn parks_taken_back(outbox: &Outbox, off: Option<Rule>) -> anyhow::Result<Rig> {
    let mut rig = Rig::without(outbox, off).await?;
    let mut writer = outbox.writer().await?;
    rig.go_round().await?;
    rig.hold(Kind::Control); // commits that wait would save the others
    rig.hold(Kind::Mark);
    rig.hold(Kind::Look);
    rig.refuse("head", true);
    for label in ["head", "next"] {
        writer.insert("K", label).await?;
    }
    rig.more(Kind::Change, 2).await?;
    writer.insert(&Keys::find().beside, "x").await?;
    rig.until_sent("x").await?;
    rig.more(Kind::Read, 4).await?;
    let parked = ["head 1 PENDING", "next 1 PENDING"];
    assert_eq!(outbox.rows().await?[..2], parked);
    // A commit that waits for the disk implies all before it; the insert of x came after the parks.
    Ok(rig)
}

#[tokio::test]
async fn park_that_a_crash_took_back_loses_nothing() -> anyhow::Result<()> {
    if cannot_crash("park_that_a_crash_took_back_loses_nothing") {
        return Ok(());
    }
    for (off, is_lost) in [(None, false), (Some(Rule::NewTenancyAfterLoss), true)] {
        // given
        let outbox = Outbox::alone("crash", &LAZY).await?;
        let mut rig = parks_taken_back(&outbox, off).await?;
        // when
        outbox.postgres().restart(Stop::Kill).await?;
        // then the rows are back in lane 0, below what memory has read
        let rows = outbox.rows().await?;
        assert_eq!(
            rows[..2],
            ["head 0 PENDING", "next 0 PENDING"],
            "the crash took nothing back"
        );
        rig.refuse("head", false);
        for kind in [Kind::Look, Kind::Mark, Kind::Control] {
            rig.unhold(kind).await?;
        }
        if is_lost {
            // Memory knows them as parked, and passes them for ever.
            rig.go_round().await?;
            rig.go_round().await?;
            assert!(!rig.sent().iter().any(|label| label == "next"), "{:?}", rig.sent());
            continue;
        }
        rig.until_sent("next").await?;
        rig.go_round().await?;
        let of_key: Vec<&String> = rig.sent().iter().filter(|label| *label != "x").collect();
        assert_eq!(of_key, ["head", "next"]);
        assert_eq!(rig.swept(), 0);
        outbox.finish().await?;
    }
    Ok(())
}

/// How many lives of the server are known.
const LIVES: &str = "select count(*) from outbox_server_life";

#[tokio::test]
async fn recovered_server_gives_every_bucket_a_new_epoch() -> anyhow::Result<()> {
    if cannot_crash("recovered_server_gives_every_bucket_a_new_epoch") {
        return Ok(());
    }
    // given
    let outbox = Outbox::alone("life", &[("fsync", "off")]).await?;
    let mut rig = Rig::new(&outbox).await?;
    assert_eq!((rig.relay.epoch_of(0), outbox.number(LIVES).await?), (Some(1), 1));
    // when it was stopped in good order
    outbox.postgres().restart(Stop::Fast).await?;
    // then its life goes on, though connections were lost
    assert_eq!(outbox.number(LIVES).await?, 1);
    // when it has recovered from a crash
    outbox.postgres().restart(Stop::Kill).await?;
    // then its life is another
    assert_eq!(outbox.number(LIVES).await?, 0);
    rig.until("new tenancies", |rig| {
        (0..64).all(|bucket| rig.relay.epoch_of(bucket) > Some(1))
    })
    .await?;
    assert_eq!(outbox.number(LIVES).await?, 1);
    outbox.finish().await
}

#[tokio::test]
async fn recovery_behind_a_pooler_is_noticed_although_no_connection_was_lost() -> anyhow::Result<()> {
    for (off, epoch) in [(None, Some(2)), (Some(Rule::NoticeRecovery), Some(1))] {
        // given
        let outbox = Outbox::new("pooler").await?;
        let mut rig = Rig::without(&outbox, off).await?;
        rig.go_round().await?;
        // when the row of this life is gone, as after a recovery, and every connection still there
        outbox.run("delete from outbox_server_life where $1 = 0", 0).await?;
        rig.more(Kind::Control, 3).await?;
        // then
        assert_eq!(rig.relay.epoch_of(0), epoch, "without {off:?}");
        outbox.finish().await?;
    }
    Ok(())
}
