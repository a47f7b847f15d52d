//! Postgres answers as the simulated store does: the cases that both pass.

use std::collections::BTreeMap;

use outbox_publisher::domain::marks::Xid;
use outbox_publisher::ports::{
    ChangeAnswer, ChangeRequest, ControlAnswer, ControlRequest, LookAnswer, LookRequest, OutboxStore, ReadAnswer,
    ReadRequest, SettleRow,
};
use outbox_publisher::postgres::PostgresStore;
use simulation::outbox::{Subject, Writer, cases};

use crate::outbox::fixture::{self, Outbox};

/// A database, writers with a connection each, instances with a store each.
struct Real {
    outbox: Outbox,
    stores: BTreeMap<usize, PostgresStore>,
    writers: Vec<fixture::Writer>,
}

impl Real {
    async fn new(case: &str) -> anyhow::Result<Self> {
        Ok(Self {
            outbox: Outbox::new(case).await?,
            stores: BTreeMap::new(),
            writers: Vec::new(),
        })
    }

    /// The store of an instance.
    fn store(&mut self, instance: usize) -> &PostgresStore {
        let Self { outbox, stores, .. } = self;
        stores.entry(instance).or_insert_with(|| outbox.store())
    }
}

impl Subject for Real {
    async fn begin(&mut self) -> anyhow::Result<Writer> {
        let mut writer = self.outbox.writer().await?;
        writer.begin().await?;
        self.writers.push(writer);
        Ok(self.writers.len() - 1)
    }

    async fn draw_xid(&mut self, writer: Writer) -> anyhow::Result<Xid> {
        let xid: i64 = sqlx::query_scalar("select pg_current_xact_id()::text::bigint")
            .fetch_one(&mut self.writers[writer].connection)
            .await?;
        Ok(xid as Xid)
    }

    async fn insert(&mut self, writer: Writer, topic: &str, key: &str) -> anyhow::Result<SettleRow> {
        let connection = &mut self.writers[writer].connection;
        let id: i64 = sqlx::query_scalar("select outbox_enqueue($1, $2, 'x', 'p')")
            .bind(topic)
            .bind(key.as_bytes())
            .fetch_one(&mut *connection)
            .await?;
        let (bucket, event_id) = sqlx::query_as("select bucket, event_id from outbox_events where id = $1")
            .bind(id)
            .fetch_one(connection)
            .await?;
        Ok(SettleRow { bucket, id, event_id })
    }

    async fn commit(&mut self, writer: Writer) -> anyhow::Result<()> {
        self.writers[writer].commit().await
    }

    async fn roll_back(&mut self, writer: Writer) -> anyhow::Result<()> {
        self.writers[writer].plain("rollback").await
    }

    async fn cut(&mut self, writer: Writer) -> anyhow::Result<()> {
        let backend = sqlx::query_scalar("select pg_backend_pid()");
        let pid: i32 = backend.fetch_one(&mut self.writers[writer].connection).await?;
        // Waits until it is gone, for a second at most.
        let ended = "select 1 where pg_terminate_backend($1::bigint::int, 1000)";
        self.outbox.run(ended, pid.into()).await
    }

    async fn expire_leases(&mut self) -> anyhow::Result<()> {
        self.outbox.owners_are_gone().await
    }

    async fn recover(&mut self) -> anyhow::Result<()> {
        self.outbox.run("delete from outbox_server_life where $1 = 0", 0).await
    }

    async fn read(&mut self, request: ReadRequest) -> anyhow::Result<ReadAnswer> {
        Ok(self.store(1).read(request).await?)
    }

    async fn look(&mut self, request: LookRequest) -> anyhow::Result<LookAnswer> {
        Ok(self.store(1).look(request).await?)
    }

    async fn mark(&mut self) -> anyhow::Result<i64> {
        Ok(self.store(1).mark().await?)
    }

    async fn settle(&mut self, rows: Vec<SettleRow>) -> anyhow::Result<u64> {
        Ok(self.store(1).settle(rows).await?)
    }

    async fn change(&mut self, request: ChangeRequest) -> anyhow::Result<ChangeAnswer> {
        Ok(self.store(1).change(request).await?)
    }

    async fn control(&mut self, instance: usize, request: ControlRequest) -> anyhow::Result<ControlAnswer> {
        Ok(self.store(instance).control(request).await?)
    }

    async fn locks(&mut self, xids: Vec<Xid>) -> anyhow::Result<(i64, Vec<Xid>)> {
        Ok(self.store(1).locks(xids).await?)
    }
}

macro_rules! tests {
    ($($case:ident)+) => {
        $(#[tokio::test]
        async fn $case() -> anyhow::Result<()> {
            let mut real = Real::new(concat!("c_", stringify!($case))).await?;
            cases::$case(&mut real).await?;
            let Real { outbox, stores, writers } = real;
            drop((stores, writers));
            outbox.remove().await
        })+
    };
}

simulation::outbox_cases!(tests);
