//! What the relay needs from a store and from a broker.
//!
//! Each has two makers: Postgres and Kafka, and one in memory that lies like them. Both pass one
//! conformance suite.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::domain::event::OutboxEvent;
use crate::domain::marks::{Snapshot, Xid};
use crate::domain::topic::{Lane, TopicFacts, TopicFault};
use crate::relay::Halt;

/// Which rows of lane 0 to read: one statement, one snapshot for all buckets.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    /// The buckets, in the order in which they are served when bytes run out.
    pub buckets: Vec<ReadBucket>,
    /// Where to begin at the latest when that transaction has ended.
    pub floors: Vec<(Xid, i64)>,
    /// Rows beyond so many payload bytes are left for the next read.
    pub bytes_max: usize,
    /// Leaves that wait for their rows are looked at as well: whoever wrote there drew no id.
    pub is_sweep: bool,
}

/// One bucket of a read.
#[derive(Debug, Clone)]
pub struct ReadBucket {
    /// The bucket.
    pub bucket: i16,
    /// The statement compares it with the lease: a bucket of another epoch returns nothing.
    pub epoch: i64,
    /// Rows above it are read, or above a floor that is lower and whose transaction has ended ...
    pub bound: i64,
    /// ... but never below this.
    pub low: i64,
    /// So many rows at most.
    pub limit: usize,
}

/// What a read found.
#[derive(Debug, Clone, Default)]
pub struct ReadAnswer {
    /// The statement's snapshot.
    pub snapshot: Snapshot,
    /// What the sequence had handed out: all ids at or below it.
    pub sample: i64,
    /// Which life of the server answered; `None` right after a recovery.
    pub life: Option<Uuid>,
    /// The buckets whose epoch was ours.
    pub owned: BTreeSet<i16>,
    /// PENDING rows of lane 0; within a bucket in id order.
    pub rows: Vec<OutboxEvent>,
    /// Buckets whose rows were cut short by `bytes_max`.
    pub cut: BTreeSet<i16>,
}

/// Which side rows to look at.
#[derive(Debug, Clone)]
pub struct LookRequest {
    /// The buckets.
    pub buckets: Vec<LookBucket>,
    /// Rows of one lane hash at most.
    pub rows_per_lane: usize,
    /// Lane hashes of one bucket at most.
    pub lanes_max: usize,
    /// Where FAILED rows halt their key.
    pub halt: Halt,
}

/// One bucket of a look.
#[derive(Debug, Clone, Copy)]
pub struct LookBucket {
    /// The bucket.
    pub bucket: i16,
    /// Compared inside the statement, as in a read.
    pub epoch: i64,
    /// Lane hashes above it.
    pub after: Option<i32>,
}

/// A row of the side lane.
#[derive(Debug, Clone)]
pub struct SideRow {
    /// The row.
    pub event: OutboxEvent,
    /// How long until its next attempt, by the database's clock.
    pub due_in: Duration,
}

/// The lowest FAILED row of a key that halts.
#[derive(Debug, Clone)]
pub struct HaltedHead {
    /// Its bucket.
    pub bucket: i16,
    /// Its id.
    pub id: i64,
    /// Its event id, which stands for a null key.
    pub event_id: Uuid,
    /// Its topic.
    pub topic: String,
    /// Its key.
    pub key: Option<Vec<u8>>,
}

/// What a look found.
#[derive(Debug, Clone, Default)]
pub struct LookAnswer {
    /// Which life of the server answered.
    pub life: Option<Uuid>,
    /// The buckets whose epoch was ours.
    pub owned: BTreeSet<i16>,
    /// PENDING rows of lane 1.
    pub rows: Vec<SideRow>,
    /// Lane hashes of which there are more rows than were returned.
    pub cut: BTreeSet<(i16, i32)>,
    /// How far each bucket was covered; a bucket that is not named was covered to its end.
    pub upto: BTreeMap<i16, i32>,
    /// FAILED heads that halt, the archive included.
    pub halted: Vec<HaltedHead>,
}

/// A row to be marked PUBLISHED: by all three, never by a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettleRow {
    /// Its bucket.
    pub bucket: i16,
    /// Its id.
    pub id: i64,
    /// Its event id: after a crash of the server an id may be another row's.
    pub event_id: Uuid,
}

/// Changes of rows of one bucket that are not published, fenced by the epoch: all in one transaction.
#[derive(Debug, Clone)]
pub struct ChangeRequest {
    /// Their bucket.
    pub bucket: i16,
    /// Compared with the lease under a lock.
    pub epoch: i64,
    /// The rows, none of them twice.
    pub rows: Vec<ChangeRow>,
}

/// What is done to one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRow {
    /// Its id.
    pub id: i64,
    /// Its event id: after a crash of the server an id may be another row's.
    pub event_id: Uuid,
    /// What to do.
    pub kind: ChangeKind,
}

/// What is done to a row that is not published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// One more attempt counted; to the side lane, due after the pause.
    Retry {
        /// From the database's now.
        pause: Duration,
        /// Why.
        error: String,
    },
    /// To the side lane, attempts untouched.
    Park,
    /// Set aside as FAILED.
    Fail {
        /// Why.
        error: String,
    },
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeAnswer {
    /// The lease has another epoch: nothing was changed.
    NotOwner,
    /// The ids that were PENDING and are changed; the others were not PENDING.
    Changed(Vec<i64>),
}

/// A bucket that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The bucket.
    pub bucket: i16,
    /// The epoch of the hold.
    pub epoch: i64,
    /// Everything of lane 0 at or below it is terminal and stays so.
    pub low_id: i64,
}

/// Renew, release, acquire, count.
#[derive(Debug, Clone)]
pub struct ControlRequest {
    /// Leases to be prolonged, with their low id.
    pub renew: Vec<Held>,
    /// Leases to be given back, likewise.
    pub release: Vec<Held>,
    /// How many free or expired buckets to take.
    pub acquire: usize,
    /// How long a lease lasts.
    pub lease: Duration,
    /// The instance is going away: it is no longer counted.
    pub is_leaving: bool,
    /// The life of the server in which all this was learned; `None` at the first statement. A server of
    /// another life renews, gives back and hands out nothing: a low id learned before a crash may lie
    /// above rows that the crash took back to lane 0, and only the answer would say so, too late.
    pub life: Option<Uuid>,
}

/// What became of it.
#[derive(Debug, Clone, Default)]
pub struct ControlAnswer {
    /// Buckets whose renewal matched.
    pub kept: BTreeSet<i16>,
    /// Buckets taken, with their new epoch and stored low id.
    pub acquired: Vec<Held>,
    /// Instances alive, this one included.
    pub instances: usize,
    /// Which life of the server this is.
    pub life: Uuid,
}

/// Why a statement has no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The connection is gone: what was under way may or may not have happened, and the server may have
    /// come back without its newest commits.
    #[error("connection to the database was lost")]
    Lost(#[source] anyhow::Error),
    /// A server that is well refused; nothing was changed.
    #[error("the database refused a statement")]
    Refused(#[source] anyhow::Error),
}

/// Where the rows are.
///
/// # Cancel safety
/// Dropping a future of it leaves the outcome unknown, as [`StoreError::Lost`] does.
pub trait OutboxStore: Send + Sync + 'static {
    /// Reads lane 0.
    fn read(&self, request: ReadRequest) -> impl Future<Output = Result<ReadAnswer, StoreError>> + Send;
    /// Looks at lane 1 and at halts.
    fn look(&self, request: LookRequest) -> impl Future<Output = Result<LookAnswer, StoreError>> + Send;
    /// Samples the sequence, then draws an xid and commits. The sample.
    fn mark(&self) -> impl Future<Output = Result<i64, StoreError>> + Send;
    /// Marks rows PUBLISHED, whatever they were thought to be. How many were not yet.
    fn settle(&self, rows: Vec<SettleRow>) -> impl Future<Output = Result<u64, StoreError>> + Send;
    /// Retries, parks or fails.
    fn change(&self, request: ChangeRequest) -> impl Future<Output = Result<ChangeAnswer, StoreError>> + Send;
    /// Renews, releases, acquires, counts.
    fn control(&self, request: ControlRequest) -> impl Future<Output = Result<ControlAnswer, StoreError>> + Send;
    /// Samples the sequence, then says which of these transactions hold no lock on the outbox.
    fn locks(&self, xids: Vec<Xid>) -> impl Future<Output = Result<(i64, Vec<Xid>), StoreError>> + Send;
    /// Gives back whatever this instance holds, and is no longer counted.
    fn leave(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Why a row is not known to be on its topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The broker may or may not have it; the producer was purged or replaced.
    #[error("not acknowledged")]
    Unknown,
    /// The client refused it; it never entered the stream.
    #[error("not accepted by the client: {0}")]
    NotSent(String),
    /// The broker refused the batch that it was in, for a reason that is some row's.
    #[error("refused by the broker: {0}")]
    Row(String),
    /// The destination takes nothing: no row is at fault.
    #[error("destination: {0}")]
    Destination(String),
}

/// What a broker tells.
#[derive(Debug)]
pub enum BrokerFact {
    /// Delivery reports of one producer.
    Reports {
        /// Which producer.
        lane: Lane,
        /// Which life of it.
        generation: u64,
        /// Token and result of each.
        reports: Vec<(usize, Result<(), SendError>)>,
    },
    /// The producer cannot go on.
    Failed {
        /// Which producer.
        lane: Lane,
        /// Which life of it.
        generation: u64,
        /// Why.
        reason: String,
    },
    /// A new producer stands ready, all reports of the old one having been given.
    Rebuilt {
        /// Which producer.
        lane: Lane,
        /// The new life.
        generation: u64,
    },
    /// An answer to [`Broker::ask_topic`].
    Topic {
        /// The number asked with.
        number: usize,
        /// What it is, or why that is not known.
        facts: Result<TopicFacts, TopicFault>,
    },
    /// A broker has answered, after the beginning or after no broker could be reached.
    Reached,
    /// The client can reach no broker, or is refused by it. It goes on trying by itself.
    Unreachable(String),
}

/// A row to be sent.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Comes back with the report.
    pub token: usize,
    /// The partition.
    pub partition: i32,
    /// For people.
    pub epoch: i64,
    /// The row.
    pub event: Arc<OutboxEvent>,
}

/// Where the rows go. Calls return at once; what comes of them arrives as [`BrokerFact`]s.
pub trait Broker: Send + Sync + 'static {
    /// Hands rows to a producer, in order. Those of another life of it are reported as unknown.
    fn send(&self, lane: Lane, generation: u64, rows: Vec<Outgoing>);
    /// Purges a producer, gives all its reports, builds the next.
    fn rebuild(&self, lane: Lane, generation: u64);
    /// Asks about a topic.
    fn ask_topic(&self, number: usize, name: String);
}
