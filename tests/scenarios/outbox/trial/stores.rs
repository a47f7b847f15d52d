//! Stores that answer late, and one that makes marks wrongly.

use std::time::Duration;

use outbox_publisher::domain::marks::Xid;
use outbox_publisher::ports::{
    ChangeAnswer, ChangeRequest, ControlAnswer, ControlRequest, LookAnswer, LookRequest, OutboxStore, ReadAnswer,
    ReadRequest, SettleRow, StoreError,
};
use rand::Rng;

/// How late an answer or a question may come.
const LATE_MAX_MS: u64 = 6;

/// A store behind a busy network: reads are answered some milliseconds after their snapshot, and marks
/// are made some milliseconds after they were asked for. So marks complete and writers go on meanwhile.
pub(super) struct Late<S>(pub(super) S);

impl<S: OutboxStore> OutboxStore for Late<S> {
    async fn read(&self, request: ReadRequest) -> Result<ReadAnswer, StoreError> {
        let answer = self.0.read(request).await;
        travel().await;
        answer
    }

    async fn look(&self, request: LookRequest) -> Result<LookAnswer, StoreError> {
        self.0.look(request).await
    }

    async fn mark(&self) -> Result<i64, StoreError> {
        travel().await;
        self.0.mark().await
    }

    async fn settle(&self, rows: Vec<SettleRow>) -> Result<u64, StoreError> {
        self.0.settle(rows).await
    }

    async fn change(&self, request: ChangeRequest) -> Result<ChangeAnswer, StoreError> {
        self.0.change(request).await
    }

    async fn control(&self, request: ControlRequest) -> Result<ControlAnswer, StoreError> {
        self.0.control(request).await
    }

    async fn locks(&self, xids: Vec<Xid>) -> Result<(i64, Vec<Xid>), StoreError> {
        self.0.locks(xids).await
    }

    async fn leave(&self) -> Result<(), StoreError> {
        self.0.leave().await
    }
}

async fn travel() {
    let late = rand::rng().random_range(0..=LATE_MAX_MS);
    tokio::time::sleep(Duration::from_millis(late)).await;
}

/// A store whose marks are samples alone, and whose every settle is taken for one.
pub(super) struct SampleAlone<S>(pub(super) S);

impl<S: OutboxStore> OutboxStore for SampleAlone<S> {
    async fn read(&self, request: ReadRequest) -> Result<ReadAnswer, StoreError> {
        self.0.read(request).await
    }

    async fn look(&self, request: LookRequest) -> Result<LookAnswer, StoreError> {
        self.0.look(request).await
    }

    async fn mark(&self) -> Result<i64, StoreError> {
        Ok(self.0.locks(Vec::new()).await?.0)
    }

    async fn settle(&self, rows: Vec<SettleRow>) -> Result<u64, StoreError> {
        Ok(self.0.settle(rows).await?.max(1))
    }

    async fn change(&self, request: ChangeRequest) -> Result<ChangeAnswer, StoreError> {
        self.0.change(request).await
    }

    async fn control(&self, request: ControlRequest) -> Result<ControlAnswer, StoreError> {
        self.0.control(request).await
    }

    async fn locks(&self, xids: Vec<Xid>) -> Result<(i64, Vec<Xid>), StoreError> {
        self.0.locks(xids).await
    }

    async fn leave(&self) -> Result<(), StoreError> {
        self.0.leave().await
    }
}
