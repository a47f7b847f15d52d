//! The read rule: each interleaving that loses or overtakes an event without one of its clauses.
//!
//! Everywhere `a` and `b` are events of one key, and `a`'s transaction has committed before `b` is
//! inserted; `x` moves the cursor of their bucket. Each test runs its interleaving under the rule, and again without the clause, which must
//! be caught: so the test is known to see what it is there to see.

use std::time::Duration;

use harness::wait::{self, Seen};
use outbox_publisher::domain::rules::Rule;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::outbox::fixture::{Keys, Outbox, TOPIC, Writer};
use crate::outbox::rig::{Kind, Marks, Rig};

/// What became of `a` and `b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seq {
    InOrder,
    Inverted,
    Lost,
    Twice,
}

fn judge(sent: &[String]) -> Seq {
    let places = |label: &str| -> Vec<usize> { (0..sent.len()).filter(|at| sent[*at] == label).collect() };
    match (&places("a")[..], &places("b")[..]) {
        ([a], [b]) if a < b => Seq::InOrder,
        ([_], [_]) => Seq::Inverted,
        ([], _) | (_, []) => Seq::Lost,
        _ => Seq::Twice,
    }
}

/// The end of most interleavings: `a` commits, `b` follows it, and all that can be found is found.
async fn commit_and_follow(rig: &mut Rig, first: &mut Writer, then: &mut Writer) -> anyhow::Result<Seq> {
    first.commit().await?;
    then.insert("K", "b").await?;
    rig.until_sent("b").await?;
    rig.go_round().await?;
    if judge(rig.sent()) == Seq::InOrder {
        assert_eq!(rig.swept(), 0, "the sweep is a net that must catch nothing");
    }
    Ok(judge(rig.sent()))
}

async fn late_commit(outbox: &Outbox, off: Option<Rule>, beside: &str) -> anyhow::Result<Seq> {
    let mut rig = Rig::without(outbox, off).await?;
    let (mut first, mut second) = (outbox.writer().await?, outbox.writer().await?);
    first.begin().await?;
    first.insert("K", "a").await?;
    second.insert(beside, "x").await?;
    rig.until_sent("x").await?;
    commit_and_follow(&mut rig, &mut first, &mut second).await
}

#[tokio::test]
async fn late_commit_is_published_before_its_keys_next_event() -> anyhow::Result<()> {
    let keys = Keys::find();
    for beside in [&keys.one, &keys.beside, &keys.elsewhere] {
        let outbox = Outbox::new("late_commit").await?;
        assert_eq!(
            late_commit(&outbox, None, beside).await?,
            Seq::InOrder,
            "behind {beside}"
        );
        outbox.finish().await?;
    }
    // A fast path above the cursor with a sweep for late ids finds `a` in the end, behind `b`. Now and
    // then the sweep comes just in time.
    let mut seen = Vec::new();
    for _ in 0..6 {
        let outbox = Outbox::new("late_commit_two_cursors").await?;
        seen.push(late_commit(&outbox, Some(Rule::OneCursor), &keys.beside).await?);
        outbox.remove().await?;
    }
    assert!(seen.contains(&Seq::Inverted), "two cursors were not caught: {seen:?}");
    Ok(())
}

#[tokio::test]
async fn late_commit_in_an_older_leaf_is_published_before_its_keys_next_event() -> anyhow::Result<()> {
    let outbox = Outbox::new("leaf_border").await?;
    outbox.small_leaves(500, 4).await?;
    outbox.next_id_is(499).await?;
    assert_eq!(late_commit(&outbox, None, &Keys::find().beside).await?, Seq::InOrder);
    let leaves = "select count(distinct tableoid) from outbox_events";
    assert_eq!(
        outbox.number(leaves).await?,
        2,
        "the events must lie on both sides of the border"
    );
    outbox.finish().await
}

#[tokio::test]
async fn leaf_after_leaf_would_show_the_next_event_without_the_late_one() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::new("leaf_after_leaf").await?;
    outbox.small_leaves(500, 4).await?;
    outbox.next_id_is(499).await?;
    let (mut first, mut second) = (outbox.writer().await?, outbox.writer().await?);
    first.begin().await?;
    first.insert("K", "a").await?;
    second.insert(&Keys::find().beside, "x").await?;
    // when the leaves are read one after the other
    let mut reader = outbox.connect().await?;
    let older = labels(
        &mut reader,
        "select convert_from(payload, 'UTF8') from outbox_events_000000000000",
    )
    .await?;
    first.commit().await?;
    second.insert("K", "b").await?;
    let newer = labels(
        &mut reader,
        "select convert_from(payload, 'UTF8') from outbox_events_000000000500",
    )
    .await?;
    // then what they show together never was
    assert_eq!((older, newer), (vec![], vec!["x".to_owned(), "b".to_owned()]));
    let together = labels(
        &mut reader,
        "select convert_from(payload, 'UTF8') from outbox_events order by id",
    )
    .await?;
    assert_eq!(together, ["a", "x", "b"]);
    outbox.remove().await
}

async fn labels(reader: &mut PgConnection, query: &'static str) -> anyhow::Result<Vec<String>> {
    Ok(sqlx::query_scalar(query).fetch_all(reader).await?)
}

/// A writer that has drawn its id and is stopped before it inserts.
async fn stalled_writer(outbox: &Outbox, has_trigger: bool) -> anyhow::Result<Seq> {
    let (mut holder, mut second) = (outbox.writer().await?, outbox.writer().await?);
    holder
        .plain(
            "create function when_the_test_says(value integer) returns integer language plpgsql as $$ \
             begin perform pg_advisory_xact_lock_shared(7); return value; end $$",
        )
        .await?;
    if !has_trigger {
        holder.plain("drop trigger outbox_events_xid on outbox_events").await?;
    }
    // The first id of 32 is logged, which takes an xid of its own accord.
    second.insert("L", "first").await?;
    holder.plain("select pg_advisory_lock(7)").await?;
    let mut rig = Rig::new(outbox).await?;
    let mut stalled = outbox.connect().await?;
    let stalled = tokio::spawn(async move {
        // Columns are computed in their order: the id is drawn, and then the lane hash waits.
        sqlx::query(
            "insert into outbox_events (lane_hash, bucket, event_id, topic, key, event_type, payload) \
             values (when_the_test_says(outbox_lane_hash($1, $2, $3)), outbox_bucket($2, $3), $3, $1, $2, 'x', 'a')",
        )
        .bind(TOPIC)
        .bind(b"K".as_slice())
        .bind(Uuid::now_v7())
        .execute(&mut stalled)
        .await
    });
    let drawn = "select case when is_called then last_value else 0 end from outbox_events_id_seq";
    wait::until("the stalled writer's id", Duration::from_secs(10), || async {
        Ok(Seen::when(outbox.number(drawn).await?, |id| *id == 2))
    })
    .await?;
    second.insert(&Keys::find().beside, "x").await?;
    rig.until_sent("x").await?;
    rig.go_round().await?;
    holder.plain("select pg_advisory_unlock(7)").await?;
    stalled.await??;
    second.insert("K", "b").await?;
    rig.until_sent("b").await?;
    rig.go_round().await?;
    Ok(judge(rig.sent()))
}

#[tokio::test]
async fn writer_stalled_between_its_id_and_its_row_is_waited_for() -> anyhow::Result<()> {
    let outbox = Outbox::new("stalled_writer").await?;
    assert_eq!(stalled_writer(&outbox, true).await?, Seq::InOrder);
    outbox.finish().await?;
    // Without the trigger it has an id and no xid: no snapshot names it, and the cursor passes it.
    let outbox = Outbox::new("stalled_writer_no_trigger").await?;
    assert_eq!(stalled_writer(&outbox, false).await?, Seq::Lost);
    outbox.remove().await
}

#[tokio::test]
async fn copy_has_its_xid_before_its_first_id() -> anyhow::Result<()> {
    let outbox = Outbox::new("copy").await?;
    let mut rig = Rig::new(&outbox).await?;
    let event_id = Uuid::now_v7();
    let line = format!(
        "{}\t{}\t{event_id}\t{TOPIC}\t\\\\x4b\tx\t\\\\x61\n",
        shared::hash::lane_hash(TOPIC, Some(b"K"), event_id),
        shared::hash::bucket_of(Some(b"K"), event_id),
    );
    for has_trigger in [true, false] {
        // given
        let mut writer = outbox.writer().await?;
        if !has_trigger {
            writer.plain("drop trigger outbox_events_xid on outbox_events").await?;
        }
        let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
            .fetch_one(&mut writer.connection)
            .await?;
        // when a COPY has begun and no row has come
        let mut copy = writer
            .connection
            .copy_in_raw("copy outbox_events (lane_hash, bucket, event_id, topic, key, event_type, payload) from stdin")
            .await?;
        let mut observer = outbox.connect().await?;
        let has_xid: bool = sqlx::query_scalar("select backend_xid is not null from pg_stat_activity where pid = $1")
            .bind(pid)
            .fetch_one(&mut observer)
            .await?;
        // then
        assert_eq!(has_xid, has_trigger);
        copy.send(line.as_bytes()).await?;
        assert_eq!(copy.finish().await?, 1);
    }
    rig.until("both rows", |rig| rig.sent() == ["a", "a"]).await?;
    rig.go_round().await?;
    outbox.finish().await
}

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
    let outbox = Outbox::new("locks").await?;
    assert_eq!(lock_look_up_behind_a_commit(&outbox, None).await?, Seq::InOrder);
    outbox.finish().await?;
    let outbox = Outbox::new("locks_believed").await?;
    let seen = lock_look_up_behind_a_commit(&outbox, Some(Rule::SampleBeforeLookup)).await?;
    assert_eq!(seen, Seq::Lost);
    outbox.remove().await
}

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
    let outbox = Outbox::new("mark_during_read").await?;
    assert_eq!(mark_during_a_read(&outbox, None).await?, Seq::InOrder);
    outbox.finish().await?;
    let outbox = Outbox::new("mark_during_read_counted").await?;
    assert_eq!(
        mark_during_a_read(&outbox, Some(Rule::MarkBeforeRead)).await?,
        Seq::Lost
    );
    outbox.remove().await
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
    let outbox = Outbox::new("ring").await?;
    assert_eq!(read_older_than_its_settle(&outbox, None).await?, ["a"]);
    outbox.finish().await?;
    let outbox = Outbox::new("ring_forgets").await?;
    let sent = read_older_than_its_settle(&outbox, Some(Rule::RingUntilRead)).await?;
    assert_eq!(sent, ["a", "a"], "a duplicate without any fault");
    outbox.remove().await
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
    let outbox = Outbox::new("low_id_last_mark").await?;
    assert_eq!(low_id_between_a_read_and_a_mark(&outbox, None).await?, Seq::InOrder);
    outbox.finish().await?;
    let outbox = Outbox::new("low_id_newest_mark").await?;
    let seen = low_id_between_a_read_and_a_mark(&outbox, Some(Rule::LowBelowLastMark)).await?;
    assert_eq!(seen, Seq::Lost);
    outbox.remove().await
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
    let outbox = Outbox::new("low_id_floors").await?;
    assert_eq!(low_id_over_a_running_writer(&outbox, None).await?, Seq::InOrder);
    outbox.finish().await?;
    let outbox = Outbox::new("low_id_no_floors").await?;
    let seen = low_id_over_a_running_writer(&outbox, Some(Rule::LowBelowFloors)).await?;
    assert_eq!(seen, Seq::Lost);
    outbox.remove().await
}
