//! The store answers as Postgres does: the cases that both pass.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::outbox::{Subject, Writer, cases};
use outbox_publisher::domain::event::OutboxEvent;
use outbox_publisher::domain::marks::Xid;
use outbox_publisher::ports::{
    ChangeAnswer, ChangeRequest, ControlAnswer, ControlRequest, LookAnswer, LookRequest, ReadAnswer, ReadRequest,
    SettleRow,
};
use shared::hash;
use uuid::Uuid;

use crate::relay::rows::{Phase, Poison, Transaction};
use crate::relay::store::Store;

/// The store of the simulation, one step at a time.
struct Memory {
    store: Store,
    instances: BTreeSet<usize>,
    now: Duration,
}

impl Memory {
    fn new() -> Self {
        let buckets: Vec<i16> = (0..64).collect();
        Self {
            store: Store::new(None, &buckets, Vec::new()),
            instances: BTreeSet::new(),
            now: Duration::ZERO,
        }
    }

    /// The next step of a writer that has nothing to insert.
    fn step(&mut self, writer: Writer) {
        self.store
            .write(writer, 0, |_, _, _| unreachable!("its plan has no row left"));
    }
}

fn event(topic: &str, key: &str, number: usize) -> OutboxEvent {
    let (event_id, bytes) = (Uuid::from_u128(number as u128 + 100), key.as_bytes());
    OutboxEvent {
        id: 0,
        bucket: hash::bucket_of(Some(bytes), event_id),
        lane_hash: hash::lane_hash(topic, Some(bytes), event_id),
        event_id,
        attempts: 0,
        topic: topic.to_owned(),
        key: Some(bytes.to_vec()),
        event_type: String::new(),
        content_type: String::new(),
        payload: None,
        headers: None,
        traceparent: None,
        tracestate: None,
    }
}

impl Subject for Memory {
    async fn begin(&mut self) -> anyhow::Result<Writer> {
        let writer = self.store.transactions.len();
        self.store.transactions.push(Transaction::new(writer, Vec::new()));
        self.step(writer);
        Ok(writer)
    }

    async fn draw_xid(&mut self, writer: Writer) -> anyhow::Result<Xid> {
        if self.store.transactions[writer].xid == 0 {
            self.store.transactions[writer].xid = self.store.draw_xid();
        }
        Ok(self.store.transactions[writer].xid)
    }

    async fn insert(&mut self, writer: Writer, topic: &str, key: &str) -> anyhow::Result<SettleRow> {
        self.draw_xid(writer).await?;
        self.store.transactions[writer].plan.push((0, Some(0)));
        self.store
            .write(writer, 0, |number, _, _| (event(topic, key, number), Poison::None));
        let row = &self.store.rows.last().expect("just inserted").event;
        Ok(SettleRow {
            bucket: row.bucket,
            id: row.id,
            event_id: row.event_id,
        })
    }

    async fn commit(&mut self, writer: Writer) -> anyhow::Result<()> {
        self.step(writer);
        anyhow::ensure!(self.store.transactions[writer].phase == Phase::Committed);
        Ok(())
    }

    async fn roll_back(&mut self, writer: Writer) -> anyhow::Result<()> {
        self.store.transactions[writer].rolls_back = true;
        self.step(writer);
        anyhow::ensure!(self.store.transactions[writer].phase == Phase::Aborted);
        Ok(())
    }

    async fn cut(&mut self, writer: Writer) -> anyhow::Result<()> {
        self.roll_back(writer).await // what the server does once it has noticed
    }

    async fn expire_leases(&mut self) -> anyhow::Result<()> {
        self.now += Duration::from_secs(1_000_000);
        self.instances.clear();
        Ok(())
    }

    async fn recover(&mut self) -> anyhow::Result<()> {
        self.store.life = None;
        Ok(())
    }

    async fn read(&mut self, request: ReadRequest) -> anyhow::Result<ReadAnswer> {
        Ok(self.store.read(&request))
    }

    async fn look(&mut self, request: LookRequest) -> anyhow::Result<LookAnswer> {
        Ok(self.store.look(&request, self.now))
    }

    async fn mark(&mut self) -> anyhow::Result<i64> {
        let sample = self.store.sequence;
        self.store.complete_own();
        Ok(sample)
    }

    async fn settle(&mut self, rows: Vec<SettleRow>) -> anyhow::Result<u64> {
        Ok(self.store.settle(&rows, |_| true))
    }

    async fn change(&mut self, request: ChangeRequest) -> anyhow::Result<ChangeAnswer> {
        Ok(self.store.change(&request, self.now))
    }

    async fn control(&mut self, instance: usize, request: ControlRequest) -> anyhow::Result<ControlAnswer> {
        self.instances.insert(instance);
        let owner = instance as u64;
        let never = |_, _, _| false;
        Ok(self
            .store
            .control(owner, &request, self.instances.len(), self.now, never))
    }

    async fn locks(&mut self, xids: Vec<Xid>) -> anyhow::Result<(i64, Vec<Xid>)> {
        Ok((self.store.sequence, self.store.without_lock(&xids)))
    }
}

macro_rules! tests {
    ($($case:ident)+) => {
        $(#[tokio::test]
        async fn $case() -> anyhow::Result<()> {
            cases::$case(&mut Memory::new()).await
        })+
    };
}

crate::outbox_cases!(tests);
