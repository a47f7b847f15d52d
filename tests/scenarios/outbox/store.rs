//! What each statement of the publisher changes, and what it must leave alone.

use std::collections::BTreeMap;
use std::time::Duration;

use outbox_publisher::ports::{
    ChangeAnswer, ChangeKind, ChangeRequest, ChangeRow, ControlRequest, Held, LookBucket, LookRequest, OutboxStore,
    ReadBucket, ReadRequest, SettleRow,
};
use outbox_publisher::postgres::PostgresStore;
use outbox_publisher::relay::Halt;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::outbox::fixture::Outbox;

/// One instance with the buckets that it took.
pub(crate) struct Owner {
    pub(crate) store: PostgresStore,
    pub(crate) held: BTreeMap<i16, Held>,
}

impl Owner {
    /// Takes every bucket; whoever held them has been silent for long.
    pub(crate) async fn take_over(outbox: &Outbox) -> anyhow::Result<Self> {
        outbox.owners_are_gone().await?;
        Self::take(outbox.store()).await
    }

    /// Takes every free bucket.
    pub(crate) async fn take(store: PostgresStore) -> anyhow::Result<Self> {
        let answer = store.control(control(64)).await?;
        let held = answer.acquired.into_iter().map(|held| (held.bucket, held)).collect();
        Ok(Self { store, held })
    }

    /// Labels of the rows of lane 0 in a bucket; `None` if the bucket is not ours.
    pub(crate) async fn read(&self, bucket: i16) -> anyhow::Result<Option<Vec<String>>> {
        self.read_or_sweep(bucket, false).await
    }

    async fn read_or_sweep(&self, bucket: i16, is_sweep: bool) -> anyhow::Result<Option<Vec<String>>> {
        let asked = ReadBucket {
            bucket,
            epoch: self.held[&bucket].epoch,
            bound: 0,
            low: 0,
            limit: 100,
        };
        let request = ReadRequest {
            buckets: vec![asked],
            floors: Vec::new(),
            bytes_max: 1 << 20,
            is_sweep,
        };
        let answer = self.store.read(request).await?;
        let labels = answer.rows.iter().map(|row| label(row.payload.as_deref())).collect();
        Ok(answer.owned.contains(&bucket).then_some(labels))
    }

    /// Labels of the side rows of a bucket; `None` if the bucket is not ours.
    pub(crate) async fn look(&self, bucket: i16) -> anyhow::Result<Option<Vec<String>>> {
        let asked = LookBucket {
            bucket,
            epoch: self.held[&bucket].epoch,
            after: None,
        };
        let answer = self.store.look(look(asked, Halt::Nowhere)).await?;
        let labels = answer
            .rows
            .iter()
            .map(|row| label(row.event.payload.as_deref()))
            .collect();
        Ok(answer.owned.contains(&bucket).then_some(labels))
    }

    /// Changes one row.
    pub(crate) async fn change(&self, row: Row, kind: ChangeKind) -> anyhow::Result<ChangeAnswer> {
        let epoch = self.held[&row.bucket].epoch;
        let request = ChangeRequest {
            bucket: row.bucket,
            epoch,
            rows: vec![ChangeRow {
                id: row.id,
                event_id: row.event_id,
                kind,
            }],
        };
        Ok(self.store.change(request).await?)
    }

    /// Settles one row; how many were not PUBLISHED yet.
    pub(crate) async fn settle(&self, row: Row) -> anyhow::Result<u64> {
        let Row { bucket, id, event_id } = row;
        Ok(self.store.settle(vec![SettleRow { bucket, id, event_id }]).await?)
    }
}

fn label(payload: Option<&[u8]>) -> String {
    String::from_utf8_lossy(payload.unwrap_or_default()).into_owned()
}

pub(crate) fn control(acquire: usize) -> ControlRequest {
    ControlRequest {
        renew: Vec::new(),
        release: Vec::new(),
        acquire,
        lease: Duration::from_secs(3600),
        is_leaving: false,
        life: None,
    }
}

pub(crate) fn look(asked: LookBucket, halt: Halt) -> LookRequest {
    LookRequest {
        buckets: vec![asked],
        rows_per_lane: 100,
        lanes_max: 100,
        halt,
    }
}

/// What names a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) bucket: i16,
    pub(crate) id: i64,
    pub(crate) event_id: Uuid,
}

impl Row {
    /// The row of a label.
    pub(crate) async fn find(outbox: &Outbox, label: &str) -> anyhow::Result<Self> {
        let mut connection = outbox.connect().await?;
        let (bucket, id, event_id) =
            sqlx::query_as("select bucket, id, event_id from outbox_events where payload = $1")
                .bind(label.as_bytes())
                .fetch_one(&mut connection)
                .await?;
        Ok(Self { bucket, id, event_id })
    }
}

pub(crate) fn retry() -> ChangeKind {
    ChangeKind::Retry {
        pause: Duration::from_secs(60),
        error: "refused".to_owned(),
    }
}

pub(crate) fn fail() -> ChangeKind {
    ChangeKind::Fail {
        error: "refused".to_owned(),
    }
}

/// A database with `head` and `follower` of one key, and the owner of every bucket.
async fn head_and_follower(test: &str) -> anyhow::Result<(Outbox, Owner, Row)> {
    let outbox = Outbox::new(test).await?;
    let mut writer = outbox.writer().await?;
    for label in ["head", "follower"] {
        writer.insert("K", label).await?;
    }
    let owner = Owner::take_over(&outbox).await?;
    let head = Row::find(&outbox, "head").await?;
    Ok((outbox, owner, head))
}

#[tokio::test]
async fn owner_of_an_older_epoch_reads_and_sees_nothing() -> anyhow::Result<()> {
    // given an owner that sleeps through the end of its lease
    let (outbox, zombie, head) = head_and_follower("zombie").await?;
    let all = Some(vec!["head".to_owned(), "follower".to_owned()]);
    assert_eq!(zombie.read(head.bucket).await?, all);
    // when its successor moves the head to the side lane
    let successor = Owner::take_over(&outbox).await?;
    assert_eq!(successor.held.len(), 64);
    successor.change(head, retry()).await?;
    // then the first gets nothing of the bucket: it would send the follower before the head
    assert_eq!(zombie.read(head.bucket).await?, None);
    assert_eq!(zombie.look(head.bucket).await?, None);
    assert_eq!(successor.read(head.bucket).await?, Some(vec!["follower".to_owned()]));
    assert_eq!(successor.look(head.bucket).await?, Some(vec!["head".to_owned()]));
    // and without the comparison inside the statement it would
    let read = include_str!("../../../outbox-publisher/queries/read.sql");
    let unfenced = read.replace("and l.epoch = c.epoch", "");
    assert_ne!(read, unfenced);
    let mut connection = outbox.connect().await?;
    let rows = sqlx::query(AssertSqlSafe(unfenced))
        .bind([head.bucket].as_slice())
        .bind([zombie.held[&head.bucket].epoch].as_slice())
        .bind([0_i64].as_slice())
        .bind([0_i64].as_slice())
        .bind([100_i32].as_slice())
        .bind(Vec::<i64>::new())
        .bind(Vec::<i64>::new())
        .bind(false)
        .fetch_all(&mut connection)
        .await?;
    assert_eq!(rows.len(), 2, "the head of the statement, and the follower");
    outbox.remove().await
}

#[tokio::test]
async fn a_row_above_the_sequence_is_found_by_the_sweep() -> anyhow::Result<()> {
    // given a row whose id nobody drew
    let (outbox, owner, head) = head_and_follower("above").await?;
    let moved = "update outbox_events set id = id + $1 where payload = 'follower'";
    outbox.run(moved, 40).await?;
    // then a read does not look so high
    assert_eq!(owner.read(head.bucket).await?, Some(vec!["head".to_owned()]));
    // and a sweep does, as a read once the sequence has come there
    let all = Some(vec!["head".to_owned(), "follower".to_owned()]);
    assert_eq!(owner.read_or_sweep(head.bucket, true).await?, all);
    outbox.next_id_is(100).await?;
    assert_eq!(owner.read(head.bucket).await?, all);
    outbox.remove().await
}

#[tokio::test]
async fn owner_of_an_older_epoch_changes_nothing() -> anyhow::Result<()> {
    // given
    let (outbox, zombie, head) = head_and_follower("zombie_changes").await?;
    let _successor = Owner::take_over(&outbox).await?;
    let before = outbox.rows().await?;
    // when
    for kind in [retry(), ChangeKind::Park, fail()] {
        // then
        assert_eq!(zombie.change(head, kind).await?, ChangeAnswer::NotOwner);
    }
    assert_eq!(outbox.rows().await?, before);
    // but what it had acknowledged is on its topic, whoever writes that down
    assert_eq!(zombie.settle(head).await?, 1);
    assert_eq!(outbox.rows().await?[0], "head 0 PUBLISHED");
    outbox.remove().await
}

#[tokio::test]
async fn take_over_waits_for_a_change_under_way() -> anyhow::Result<()> {
    // given a change that has compared its epoch and not yet committed
    let (outbox, owner, head) = head_and_follower("take_over_waits").await?;
    let mut changer = outbox.writer().await?;
    changer.begin().await?;
    sqlx::query(include_str!("../../../outbox-publisher/queries/change.sql"))
        .bind(head.bucket)
        .bind(owner.held[&head.bucket].epoch)
        .bind([head.id].as_slice())
        .bind([head.event_id].as_slice())
        .bind([1_i16].as_slice())
        .bind([0_i32].as_slice())
        .bind([None::<i64>].as_slice())
        .bind([None::<String>].as_slice())
        .execute(&mut changer.connection)
        .await?;
    // when the lease runs out
    let mut other = outbox.writer().await?;
    other.plain("set lock_timeout = '50ms'").await?;
    let expired = sqlx::query("update outbox_leases set epoch = epoch + 1 where bucket = $1")
        .bind(head.bucket)
        .execute(&mut other.connection)
        .await;
    // then nobody raises the epoch before it is over
    let error = expired.expect_err("the lease row is locked FOR SHARE");
    assert_eq!(
        error.as_database_error().and_then(|e| e.code()).as_deref(),
        Some("55P03")
    );
    changer.commit().await?;
    outbox.remove().await
}

#[tokio::test]
async fn only_pending_rows_are_retried_parked_or_failed() -> anyhow::Result<()> {
    // given
    let (outbox, owner, head) = head_and_follower("only_pending").await?;
    assert_eq!(owner.settle(head).await?, 1);
    // when
    for kind in [retry(), ChangeKind::Park, fail()] {
        // then a published row counts as published
        assert_eq!(owner.change(head, kind).await?, ChangeAnswer::Changed(Vec::new()));
    }
    assert_eq!(outbox.rows().await?[0], "head 0 PUBLISHED");
    // and a row is the one of its event id, not of its id
    let mut other = Row::find(&outbox, "follower").await?;
    other.event_id = Uuid::now_v7();
    assert_eq!(owner.change(other, fail()).await?, ChangeAnswer::Changed(Vec::new()));
    assert_eq!(outbox.rows().await?[1], "follower 0 PENDING");
    outbox.remove().await
}

#[tokio::test]
async fn what_is_acknowledged_is_published_whatever_was_thought_of_it() -> anyhow::Result<()> {
    // given
    let (outbox, owner, head) = head_and_follower("settle").await?;
    let follower = Row::find(&outbox, "follower").await?;
    owner.change(head, fail()).await?;
    owner.change(follower, retry()).await?;
    assert_eq!(outbox.rows().await?, ["head 2 FAILED", "follower 1 PENDING"]);
    // when an id names another row, as after a crash
    let stranger = Row {
        event_id: Uuid::now_v7(),
        ..head
    };
    assert_eq!(owner.settle(stranger).await?, 0);
    // then the row is left alone
    assert_eq!(outbox.rows().await?, ["head 2 FAILED", "follower 1 PENDING"]);
    // when the rows themselves are settled
    assert_eq!(owner.settle(head).await?, 1);
    assert_eq!(owner.settle(follower).await?, 1);
    // then both are back in lane 0, once
    assert_eq!(outbox.rows().await?, ["head 0 PUBLISHED", "follower 0 PUBLISHED"]);
    assert_eq!(owner.settle(head).await?, 0);
    outbox.finish().await
}

#[tokio::test]
async fn retry_counts_an_attempt_and_park_counts_none() -> anyhow::Result<()> {
    let (outbox, owner, head) = head_and_follower("attempts").await?;
    let follower = Row::find(&outbox, "follower").await?;
    owner.change(head, retry()).await?;
    owner.change(follower, ChangeKind::Park).await?;
    let attempts = "select sum(publish_attempts) from outbox_events where lane = 1";
    assert_eq!(outbox.number(attempts).await?, 1);
    let due = "select count(*) from outbox_events where next_attempt_at > clock_timestamp() + interval '50 seconds'";
    assert_eq!(outbox.number(due).await?, 1, "only the retried row is due later");
    owner.change(head, fail()).await?;
    assert_eq!(outbox.rows().await?[0], "head 2 FAILED");
    outbox.remove().await
}

#[tokio::test]
async fn sequence_that_has_handed_out_nothing_is_sampled_as_zero() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::new("sample").await?;
    let owner = Owner::take_over(&outbox).await?;
    // then
    assert_eq!(owner.store.mark().await?, 0);
    assert_eq!(owner.store.locks(Vec::new()).await?.0, 0);
    let last_value = "select last_value from outbox_events_id_seq";
    assert_eq!(
        outbox.number(last_value).await?,
        1,
        "last_value alone would pass the first row"
    );
    // when the first id is drawn
    outbox.writer().await?.insert("K", "first").await?;
    assert_eq!(owner.store.mark().await?, 1);
    outbox.remove().await
}

#[tokio::test]
async fn each_session_draws_its_ids_one_by_one() -> anyhow::Result<()> {
    let outbox = Outbox::new("cache").await?;
    let cache = "select seqcache from pg_sequence where seqrelid = 'outbox_events_id_seq'::regclass";
    assert_eq!(
        outbox.number(cache).await?,
        1,
        "ids in blocks are out of order between sessions"
    );
    let (mut one, mut other) = (outbox.writer().await?, outbox.writer().await?);
    let ids = [
        one.insert("K", "1").await?,
        other.insert("K", "2").await?,
        one.insert("K", "3").await?,
    ];
    assert_eq!(ids, [1, 2, 3]);
    outbox.remove().await
}
