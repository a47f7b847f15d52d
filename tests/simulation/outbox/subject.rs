//! What a case needs of a store.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use outbox_publisher::domain::marks::Xid;
use outbox_publisher::ports::{
    ChangeAnswer, ChangeKind, ChangeRequest, ChangeRow, ControlAnswer, ControlRequest, Held, LookAnswer, LookBucket,
    LookRequest, ReadAnswer, ReadBucket, ReadRequest, SettleRow,
};
use outbox_publisher::relay::Halt;
use shared::hash;
use uuid::Uuid;

/// A transaction of a library user, as its subject names it.
pub type Writer = usize;

/// A store of 64 buckets with nothing in it, whose clock and writers the case moves.
///
/// The statements are those of [`outbox_publisher::ports::OutboxStore`], of one instance each.
pub trait Subject {
    /// Begins a transaction; it has no transaction id yet.
    fn begin(&mut self) -> impl Future<Output = anyhow::Result<Writer>>;
    /// Draws its transaction id, unless it has one.
    fn draw_xid(&mut self, writer: Writer) -> impl Future<Output = anyhow::Result<Xid>>;
    /// Inserts an event.
    fn insert(&mut self, writer: Writer, topic: &str, key: &str) -> impl Future<Output = anyhow::Result<SettleRow>>;
    /// Commits.
    fn commit(&mut self, writer: Writer) -> impl Future<Output = anyhow::Result<()>>;
    /// Rolls back.
    fn roll_back(&mut self, writer: Writer) -> impl Future<Output = anyhow::Result<()>>;
    /// Its connection is cut in the midst of the transaction, and the server has noticed.
    fn cut(&mut self, writer: Writer) -> impl Future<Output = anyhow::Result<()>>;
    /// Every lease has run out.
    fn expire_leases(&mut self) -> impl Future<Output = anyhow::Result<()>>;
    /// The server has recovered from a crash that took nothing back but its life.
    fn recover(&mut self) -> impl Future<Output = anyhow::Result<()>>;

    /// Reads lane 0.
    fn read(&mut self, request: ReadRequest) -> impl Future<Output = anyhow::Result<ReadAnswer>>;
    /// Looks at lane 1 and at halts.
    fn look(&mut self, request: LookRequest) -> impl Future<Output = anyhow::Result<LookAnswer>>;
    /// Makes a mark.
    fn mark(&mut self) -> impl Future<Output = anyhow::Result<i64>>;
    /// Marks rows PUBLISHED.
    fn settle(&mut self, rows: Vec<SettleRow>) -> impl Future<Output = anyhow::Result<u64>>;
    /// Retries, parks or fails.
    fn change(&mut self, request: ChangeRequest) -> impl Future<Output = anyhow::Result<ChangeAnswer>>;
    /// Moves leases of an instance.
    fn control(
        &mut self,
        instance: usize,
        request: ControlRequest,
    ) -> impl Future<Output = anyhow::Result<ControlAnswer>>;
    /// Looks at locks.
    fn locks(&mut self, xids: Vec<Xid>) -> impl Future<Output = anyhow::Result<(i64, Vec<Xid>)>>;
}

/// The topic of events that name no other.
pub(crate) const TOPIC: &str = "t";

/// The requests of a case, short.
pub(crate) trait Fixture: Subject {
    /// Commits one event of each key, in one transaction.
    fn committed(&mut self, keys: &[&str]) -> impl Future<Output = anyhow::Result<Vec<SettleRow>>> {
        async move {
            let writer = self.begin().await?;
            let mut rows = Vec::new();
            for key in keys {
                rows.push(self.insert(writer, TOPIC, key).await?);
            }
            self.commit(writer).await?;
            Ok(rows)
        }
    }

    /// An instance takes every free bucket.
    fn take(&mut self, instance: usize) -> impl Future<Output = anyhow::Result<Owner>> {
        async move {
            let answer = self.control(instance, control(64)).await?;
            let held = answer.acquired.into_iter().map(|held| (held.bucket, held)).collect();
            Ok(Owner { held })
        }
    }

    /// An instance takes every bucket of owners that have been silent for long.
    fn take_over(&mut self, instance: usize) -> impl Future<Output = anyhow::Result<Owner>> {
        async move {
            self.expire_leases().await?;
            self.take(instance).await
        }
    }

    /// Ids of lane 0 above `bound`, 100 at most; `None` if the bucket is not the owner's.
    fn ids_above(
        &mut self,
        owner: &Owner,
        bucket: i16,
        bound: i64,
    ) -> impl Future<Output = anyhow::Result<Option<Vec<i64>>>> {
        async move {
            let asked = ReadBucket {
                bound,
                ..owner.reads(bucket)
            };
            let answer = self.read(read(vec![asked], Vec::new())).await?;
            Ok(answer.owned.contains(&bucket).then(|| ids(&answer)))
        }
    }

    /// Retries, parks or fails one row.
    fn change_row(
        &mut self,
        owner: &Owner,
        row: SettleRow,
        kind: ChangeKind,
    ) -> impl Future<Output = anyhow::Result<ChangeAnswer>> {
        self.change_rows(owner, vec![(row, kind)])
    }

    /// Retries, parks and fails rows of one bucket.
    fn change_rows(
        &mut self,
        owner: &Owner,
        rows: Vec<(SettleRow, ChangeKind)>,
    ) -> impl Future<Output = anyhow::Result<ChangeAnswer>> {
        let bucket = rows[0].0.bucket;
        let rows = rows.into_iter().map(|(row, kind)| ChangeRow {
            id: row.id,
            event_id: row.event_id,
            kind,
        });
        self.change(ChangeRequest {
            bucket,
            epoch: owner.held[&bucket].epoch,
            rows: rows.collect(),
        })
    }
}

impl<S: Subject> Fixture for S {}

/// The buckets that one instance took.
pub(crate) struct Owner {
    /// By bucket.
    pub(crate) held: BTreeMap<i16, Held>,
}

impl Owner {
    /// A read of everything of a bucket.
    pub(crate) fn reads(&self, bucket: i16) -> ReadBucket {
        ReadBucket {
            bucket,
            epoch: self.held[&bucket].epoch,
            bound: 0,
            low: 0,
            limit: 100,
        }
    }

    /// A look at everything of a bucket.
    pub(crate) fn looks(&self, bucket: i16) -> LookRequest {
        let asked = LookBucket {
            bucket,
            epoch: self.held[&bucket].epoch,
            after: None,
        };
        LookRequest {
            buckets: vec![asked],
            rows_per_lane: 100,
            lanes_max: 100,
            halt: Halt::Nowhere,
        }
    }
}

/// A read of these buckets.
pub(crate) fn read(buckets: Vec<ReadBucket>, floors: Vec<(Xid, i64)>) -> ReadRequest {
    ReadRequest {
        buckets,
        floors,
        bytes_max: 1 << 20,
        is_sweep: false,
    }
}

/// A control that only takes.
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

/// A retry that is due much later.
pub(crate) fn retry() -> ChangeKind {
    ChangeKind::Retry {
        pause: Duration::from_secs(60),
        error: "refused".to_owned(),
    }
}

/// A last failure.
pub(crate) fn fail() -> ChangeKind {
    ChangeKind::Fail {
        error: "refused".to_owned(),
    }
}

/// The ids of a read.
pub(crate) fn ids(answer: &ReadAnswer) -> Vec<i64> {
    answer.rows.iter().map(|row| row.id).collect()
}

/// The bucket of a key.
pub(crate) fn bucket_of(key: &str) -> i16 {
    hash::bucket_of(Some(key.as_bytes()), Uuid::nil())
}

/// `count` keys of one bucket.
pub(crate) fn neighbours(count: usize) -> Vec<String> {
    (0..)
        .map(|n| format!("K{n}"))
        .filter(|key| bucket_of(key) == 7)
        .take(count)
        .collect()
}
