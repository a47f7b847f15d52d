//! A Postgres that comes back without its newest commits.
//!
//! Settles, retries and parks commit asynchronously. A crash may take the last of them back, while the
//! publisher's memory still has them; so every bucket begins anew after it.

use std::time::Duration;

use harness::postgres::{Postgres, Stop};
use harness::stack::Home;
use harness::wait::{self, Seen};
use outbox_publisher::domain::rules::Rule;
use outbox_publisher::ports::{ControlRequest, Held, OutboxStore};
use sqlx::Connection;
use uuid::Uuid;

use crate::outbox::fixture::{Keys, Outbox};
use crate::outbox::rig::{Kind, Rig};
use crate::outbox::store::{Owner, control};

/// Nothing but the log writer, which a test rests, writes a commit for which nobody waits.
const LAZY: [(&str, &str); 3] = [
    ("fsync", "off"), // what a killed process has written stays written
    ("checkpoint_timeout", "1h"),
    ("bgwriter_lru_maxpages", "0"),
];

/// How long one session may take to reach the lock of another.
const WAIT_WITHIN: Duration = Duration::from_secs(30);

fn cannot_crash(test: &str) -> anyhow::Result<bool> {
    let has_server = Home::from_environment()? == Home::Containers || Postgres::local_binaries().is_some();
    if !has_server {
        eprintln!("SKIPPED {test}: no Postgres of our own that could be killed");
    }
    Ok(!has_server)
}

/// Rests the process that writes the commits for which nobody waits.
async fn rest_log_writer(outbox: &Outbox) -> anyhow::Result<()> {
    let pid = outbox
        .number("select pid::bigint from pg_stat_activity where backend_type = 'walwriter'")
        .await?;
    outbox.postgres().freeze_process(u32::try_from(pid)?).await
}

/// Parks that are known to have committed and are passed in memory, and that only memory has.
async fn parks_taken_back(outbox: &Outbox, off: Option<Rule>) -> anyhow::Result<Rig> {
    let mut rig = Rig::without(outbox, off).await?;
    let mut writer = outbox.writer().await?;
    rig.go_round().await?;
    rest_log_writer(outbox).await?;
    for kind in [Kind::Control, Kind::Mark, Kind::Look] {
        rig.hold(kind); // commits that wait save all that came before them
    }
    rig.hold(Kind::Change);
    rig.keep_reports();
    rig.refuse("head", true);
    writer.begin().await?;
    for (key, label) in [("K", "head"), ("K", "next"), (&Keys::find().beside, "x")] {
        writer.insert(key, label).await?;
    }
    writer.commit().await?;
    rig.until_sent("x").await?;
    rig.wants(Kind::Change).await?;
    rig.unhold(Kind::Change).await?;
    rig.more(Kind::Read, 2).await?;
    assert_eq!(outbox.rows().await?[..2], ["head 1 PENDING", "next 1 PENDING"]);
    // The settle of x, which waits for nothing either, makes a mark: reads go on above all three.
    rig.report();
    rig.more(Kind::Settle, 1).await?;
    rig.more(Kind::Read, 4).await?;
    Ok(rig)
}

#[tokio::test]
async fn park_that_a_crash_took_back_loses_nothing() -> anyhow::Result<()> {
    if cannot_crash("park_that_a_crash_took_back_loses_nothing")? {
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
    if cannot_crash("recovered_server_gives_every_bucket_a_new_epoch")? {
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
async fn of_publishers_that_start_together_each_learns_the_servers_life() -> anyhow::Result<()> {
    // given a server whose life nobody has written, and somebody who is about to commit it
    let outbox = Outbox::new("born_together").await?;
    let mut first = outbox.connect().await?;
    let mut tx = first.begin().await?;
    let life: Uuid = sqlx::query_scalar("insert into outbox_server_life default values returning life")
        .fetch_one(&mut *tx)
        .await?;
    // when another one starts meanwhile
    let second = outbox.store();
    let starting = tokio::spawn(async move { second.control(control(32)).await });
    let waiting =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    wait::until("the second one to wait for the first", WAIT_WITHIN, || async {
        Ok(Seen::when(outbox.number(waiting).await?, |waiting| *waiting == 1))
    })
    .await?;
    tx.commit().await?;
    // then it knows that life, and has its buckets
    let answer = starting.await??;
    assert_eq!((answer.life, answer.acquired.len()), (life, 32));
    outbox.remove().await
}

#[tokio::test]
async fn recovery_behind_a_pooler_is_noticed_although_no_connection_was_lost() -> anyhow::Result<()> {
    for (off, held) in [(None, 0), (Some(Rule::NoticeRecovery), 64)] {
        // given
        let outbox = Outbox::new("pooler").await?;
        let mut rig = Rig::without(&outbox, off).await?;
        rig.go_round().await?;
        rig.hold(Kind::Control);
        // when the row of this life is gone, as after a recovery, and every connection still there
        outbox.run("delete from outbox_server_life where $1 = 0", 0).await?;
        rig.more(Kind::Read, 1).await?;
        // then the next read says so, and every bucket is given up
        assert_eq!(rig.relay.buckets_held(), held, "without {off:?}");
        // and begins anew, once
        rig.unhold(Kind::Control).await?;
        rig.until("the next tenancies", |rig| rig.relay.epoch_of(63) > Some(1))
            .await?;
        assert_eq!(rig.relay.epoch_of(0), Some(2));
        assert_eq!(outbox.number(LIVES).await?, 1);
        outbox.finish().await?;
    }
    Ok(())
}

#[tokio::test]
async fn low_id_of_another_life_of_the_server_is_not_stored() -> anyhow::Result<()> {
    // given an owner that has learned of a server's life
    let outbox = Outbox::new("renew_in_same_life").await?;
    let owner = Owner::take_over(&outbox).await?;
    let life = owner.store.control(control(0)).await?.life;
    // when the server recovers behind a pooler, and the owner renews with what it knew
    outbox.run("delete from outbox_server_life where $1 = 0", 0).await?;
    let mut stale = control(64);
    stale.life = Some(life);
    stale.renew = owner.held.values().map(|held| Held { low_id: 7, ..*held }).collect();
    stale.release = stale.renew.split_off(32);
    let answer = owner.store.control(stale.clone()).await?;
    // then nothing is renewed, given back or handed out, and the answer says why
    assert_ne!(answer.life, life);
    assert_eq!((answer.kept.len(), answer.acquired.len()), (0, 0));
    let moved = "select count(*) from outbox_leases where low_id > 0 or lock_owner is null or epoch <> 1";
    assert_eq!(outbox.number(moved).await?, 0);
    // when it has learned of the new life
    let anew = owner
        .store
        .control(ControlRequest {
            life: Some(answer.life),
            ..control(64)
        })
        .await?;
    // then it takes its buckets again, at their stored low ids
    assert_eq!(anew.acquired.len(), 64);
    assert!(anew.acquired.iter().all(|held| held.low_id == 0 && held.epoch == 2));
    outbox.remove().await
}
