//! The statements of the relay, on a connection each, so that a long read holds up no settle.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::TryStreamExt;
use shared::postgres::Session;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::connection::Slot;
use crate::domain::event::OutboxEvent;
use crate::domain::marks::{Snapshot, Xid};
use crate::ports::{
    ChangeAnswer, ChangeKind, ChangeRequest, ChangeRow, ControlAnswer, ControlRequest, HaltedHead, Held, LookAnswer,
    LookRequest, OutboxStore, ReadAnswer, ReadRequest, SettleRow, SideRow, StoreError,
};
use crate::relay::Halt;

/// Errors are kept with their row up to so many characters.
const ERROR_CHARS_MAX: usize = 1000;
/// Side rows are cut like the rows of a read.
const LOOK_BYTES_MAX: usize = 8 << 20;

/// The outbox in Postgres, as one instance sees it.
#[derive(Debug)]
pub struct PostgresStore {
    instance: Uuid,
    host: String,
    reader: Slot,
    looker: Slot,
    settler: Slot,
    changer: Slot,
    controller: Slot,
}

/// The columns of change.sql.
#[derive(Default)]
struct ChangeColumns {
    ids: Vec<i64>,
    event_ids: Vec<Uuid>,
    lanes: Vec<i16>,
    attempts: Vec<i32>,
    pauses_ms: Vec<Option<i64>>,
    errors: Vec<Option<String>>,
}

impl ChangeColumns {
    fn of(rows: &[ChangeRow]) -> Self {
        let mut columns = Self::default();
        for row in rows {
            let (lane, attempts, pause, error) = match &row.kind {
                ChangeKind::Park => (1, 0, None, None),
                ChangeKind::Retry { pause, error } => (1, 1, Some(pause.as_millis() as i64), Some(error)),
                ChangeKind::Fail { error } => (2, 1, None, Some(error)),
            };
            columns.ids.push(row.id);
            columns.event_ids.push(row.event_id);
            columns.lanes.push(lane);
            columns.attempts.push(attempts);
            columns.pauses_ms.push(pause);
            columns.errors.push(error.map(|error| storable(error.as_str())));
        }
        columns
    }
}

/// A text column holds no NUL, and no more than helps.
fn storable(error: &str) -> String {
    error.replace('\0', "\u{fffd}").chars().take(ERROR_CHARS_MAX).collect()
}

impl PostgresStore {
    /// A store that connects when it is first asked. `instance` is the lock owner of its leases.
    pub fn new(
        options: &PgConnectOptions,
        session: Session,
        connect_timeout: Duration,
        instance: Uuid,
        host: String,
    ) -> Self {
        let slot = |session: Session| Slot::new(options.clone(), session, connect_timeout);
        Self {
            instance,
            host,
            // The planner keeps to the index also while a leaf is empty.
            reader: slot(session.indexed()),
            looker: slot(session.indexed()),
            // Losing a mark, a retry or a park in a crash costs a duplicate; a stored low id, which is
            // committed synchronously, implies in log order what came before it.
            // A settle waits for no lock on another leaf: the oldest is scanned under one before it is dropped.
            settler: slot(session.indexed().replanned().async_commit()),
            changer: slot(session.indexed().async_commit()),
            controller: slot(session),
        }
    }
}

impl OutboxStore for PostgresStore {
    async fn read(&self, request: ReadRequest) -> Result<ReadAnswer, StoreError> {
        let mut open = self.reader.open().await?;
        let column = |of: fn(&crate::ports::ReadBucket) -> i64| request.buckets.iter().map(of).collect::<Vec<_>>();
        let buckets: Vec<i16> = request.buckets.iter().map(|b| b.bucket).collect();
        let limits: Vec<i32> = request
            .buckets
            .iter()
            .map(|b| i32::try_from(b.limit).unwrap_or(i32::MAX))
            .collect();
        let (xids, floors): (Vec<i64>, Vec<i64>) =
            request.floors.iter().map(|(xid, floor)| (*xid as i64, *floor)).unzip();
        let result = async {
            let mut rows = sqlx::query(include_str!("../../queries/read.sql"))
                .bind(buckets)
                .bind(column(|b| b.epoch))
                .bind(column(|b| b.bound))
                .bind(column(|b| b.low))
                .bind(limits)
                .bind(xids)
                .bind(floors)
                .bind(request.is_sweep)
                .fetch(open.connection());
            let mut answer = ReadAnswer::default();
            let mut bytes = 0;
            while let Some(row) = rows.try_next().await? {
                if row.try_get::<i16, _>(0)? == HEAD {
                    read_head(&row, &mut answer)?;
                    continue;
                }
                // Rows over the bound are not kept: they come again. One is always kept.
                if bytes > request.bytes_max || answer.cut.contains(&row.try_get(0)?) {
                    answer.cut.insert(row.try_get(0)?);
                    continue;
                }
                let event = event(&row)?;
                bytes += event.size_bytes();
                answer.rows.push(event);
            }
            Ok(answer)
        }
        .await;
        open.settle(result)
    }

    async fn look(&self, request: LookRequest) -> Result<LookAnswer, StoreError> {
        let mut open = self.looker.open().await?;
        let result = look(open.connection(), &request).await;
        open.settle(result)
    }

    async fn mark(&self) -> Result<i64, StoreError> {
        let mut open = self.controller.open().await?;
        // The sample stands before the xid in the target list: the transaction draws it afterwards.
        let result = sqlx::query_scalar(
            "select case when is_called then last_value else last_value - 1 end, pg_current_xact_id() from outbox_events_id_seq",
        )
        .fetch_one(open.connection())
        .await;
        open.settle(result)
    }

    async fn settle(&self, rows: Vec<SettleRow>) -> Result<u64, StoreError> {
        let mut open = self.settler.open().await?;
        let result = sqlx::query(include_str!("../../queries/settle.sql"))
            .bind(rows.iter().map(|row| row.bucket).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.id).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.event_id).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.id).min())
            .bind(rows.iter().map(|row| row.id).max())
            .execute(open.connection())
            .await;
        open.settle(result.map(|done| done.rows_affected()))
    }

    async fn change(&self, request: ChangeRequest) -> Result<ChangeAnswer, StoreError> {
        let columns = ChangeColumns::of(&request.rows);
        let mut open = self.changer.open().await?;
        let result = sqlx::query_as::<_, (bool, Vec<i64>)>(include_str!("../../queries/change.sql"))
            .bind(request.bucket)
            .bind(request.epoch)
            .bind(columns.ids)
            .bind(columns.event_ids)
            .bind(columns.lanes)
            .bind(columns.attempts)
            .bind(columns.pauses_ms)
            .bind(columns.errors)
            .fetch_one(open.connection())
            .await;
        let (is_owner, changed) = open.settle(result)?;
        Ok(if is_owner {
            ChangeAnswer::Changed(changed)
        } else {
            ChangeAnswer::NotOwner
        })
    }

    async fn control(&self, request: ControlRequest) -> Result<ControlAnswer, StoreError> {
        let column = |held: &[Held], of: fn(&Held) -> i64| held.iter().map(of).collect::<Vec<_>>();
        let buckets = |held: &[Held]| held.iter().map(|h| h.bucket).collect::<Vec<_>>();
        let mut open = self.controller.open().await?;
        let result = sqlx::query_as::<_, (Vec<i16>, Vec<i16>, Vec<i64>, Vec<i64>, i64, Uuid)>(include_str!(
            "../../queries/control.sql"
        ))
        .bind(self.instance)
        .bind(&self.host)
        .bind(request.is_leaving)
        .bind(request.lease.as_millis() as i64)
        .bind(buckets(&request.renew))
        .bind(column(&request.renew, |h| h.epoch))
        .bind(column(&request.renew, |h| h.low_id))
        .bind(buckets(&request.release))
        .bind(column(&request.release, |h| h.epoch))
        .bind(column(&request.release, |h| h.low_id))
        .bind(request.acquire as i64)
        .bind(request.life)
        .fetch_one(open.connection())
        .await;
        let (kept, taken, epochs, lows, instances, life) = open.settle(result)?;
        let acquired = taken.into_iter().zip(epochs).zip(lows);
        Ok(ControlAnswer {
            kept: kept.into_iter().collect(),
            acquired: acquired
                .map(|((bucket, epoch), low_id)| Held { bucket, epoch, low_id })
                .collect(),
            instances: usize::try_from(instances).unwrap_or(1),
            life,
        })
    }

    async fn locks(&self, xids: Vec<Xid>) -> Result<(i64, Vec<Xid>), StoreError> {
        let mut open = self.looker.open().await?;
        let result = async {
            // The sample first, in a statement of its own: what is inserted after the look-up is above it.
            let sample = sqlx::query_scalar(
                "select case when is_called then last_value else last_value - 1 end from outbox_events_id_seq",
            )
            .fetch_one(open.connection())
            .await?;
            let without: Vec<i64> = sqlx::query_scalar(include_str!("../../queries/locks.sql"))
                .bind(xids.iter().map(|xid| *xid as i64).collect::<Vec<_>>())
                .fetch_all(open.connection())
                .await?;
            Ok((sample, without.into_iter().map(|xid| xid as Xid).collect()))
        }
        .await;
        open.settle(result)
    }

    async fn leave(&self) -> Result<(), StoreError> {
        let mut open = self.controller.open().await?;
        let result = sqlx::query(
            "with gone as (delete from outbox_instances where instance_id = $1) \
             update outbox_leases set lock_owner = null, locked_until = '-infinity' where lock_owner = $1",
        )
        .bind(self.instance)
        .execute(open.connection())
        .await;
        open.settle(result.map(|_| ()))
    }
}

/// The bucket of a statement's first row, which tells about the statement.
const HEAD: i16 = -1;

async fn look(connection: &mut sqlx::PgConnection, request: &LookRequest) -> Result<LookAnswer, sqlx::Error> {
    let buckets: Vec<i16> = request.buckets.iter().map(|b| b.bucket).collect();
    let mut answer = LookAnswer::default();
    if request.halt == Halt::Nowhere {
        look_at_rows(connection, request, &buckets, &mut answer).await?;
        return Ok(answer);
    }
    // Halts and side rows of one snapshot: a row put back between two would be in neither.
    let mut tx = connection
        .begin_with("begin isolation level repeatable read read only")
        .await?;
    look_at_rows(&mut tx, request, &buckets, &mut answer).await?;
    look_at_heads(&mut tx, request, &buckets, &mut answer).await?;
    tx.commit().await?;
    Ok(answer)
}

/// The rows of lane 1.
async fn look_at_rows(
    connection: &mut sqlx::PgConnection,
    request: &LookRequest,
    buckets: &[i16],
    answer: &mut LookAnswer,
) -> Result<(), sqlx::Error> {
    let mut lanes: BTreeMap<i16, BTreeSet<i32>> = BTreeMap::new();
    let mut counts: BTreeMap<(i16, i32), usize> = BTreeMap::new();
    {
        let mut rows = sqlx::query(include_str!("../../queries/look.sql"))
            .bind(buckets)
            .bind(request.buckets.iter().map(|b| b.epoch).collect::<Vec<_>>())
            .bind(
                request
                    .buckets
                    .iter()
                    .map(|b| b.after.map_or(i64::MIN, i64::from))
                    .collect::<Vec<_>>(),
            )
            .bind(request.lanes_max as i64)
            .bind(request.rows_per_lane as i64)
            .fetch(&mut *connection);
        let mut bytes = 0;
        while let Some(row) = rows.try_next().await? {
            let bucket = row.try_get::<i16, _>(0)?;
            if bucket == HEAD {
                answer.life = row.try_get(3)?;
                answer.owned = numbers(row.try_get(7)?);
                continue;
            }
            let lane_hash = row.try_get::<i32, _>(2)?;
            lanes.entry(bucket).or_default().insert(lane_hash);
            let count = counts.entry((bucket, lane_hash)).or_default();
            *count += 1;
            if *count >= request.rows_per_lane || bytes > LOOK_BYTES_MAX {
                answer.cut.insert((bucket, lane_hash));
            }
            if bytes > LOOK_BYTES_MAX {
                continue;
            }
            let event = event(&row)?;
            bytes += event.size_bytes();
            let due_in = Duration::from_millis(row.try_get::<Option<i64>, _>(13)?.unwrap_or(0).unsigned_abs());
            answer.rows.push(SideRow { event, due_in });
        }
    }
    for (bucket, lanes) in lanes {
        if let Some(last) = lanes.last().filter(|_| lanes.len() >= request.lanes_max) {
            answer.upto.insert(bucket, *last);
        }
    }
    Ok(())
}

/// The FAILED heads that halt their keys.
async fn look_at_heads(
    connection: &mut sqlx::PgConnection,
    request: &LookRequest,
    buckets: &[i16],
    answer: &mut LookAnswer,
) -> Result<(), sqlx::Error> {
    let topics = match &request.halt {
        Halt::On(topics) => topics.clone(),
        Halt::Nowhere | Halt::Everywhere => Vec::new(),
    };
    let heads =
        sqlx::query_as::<_, (i16, i64, Uuid, String, Option<Vec<u8>>)>(include_str!("../../queries/halted.sql"))
            .bind(buckets)
            .bind(request.halt == Halt::Everywhere)
            .bind(topics)
            .fetch_all(connection)
            .await?;
    let head = |(bucket, id, event_id, topic, key)| HaltedHead {
        bucket,
        id,
        event_id,
        topic,
        key,
    };
    answer.halted = heads.into_iter().map(head).collect();
    Ok(())
}

fn read_head(row: &PgRow, answer: &mut ReadAnswer) -> Result<(), sqlx::Error> {
    answer.snapshot = Snapshot {
        xmax: row.try_get::<i64, _>(1)? as Xid,
        running: numbers::<Xid, Vec<Xid>>(row.try_get(5)?),
    };
    answer.life = row.try_get(3)?;
    answer.owned = numbers(row.try_get(7)?);
    let sample: Option<&str> = row.try_get(8)?;
    answer.sample = sample.and_then(|sample| sample.parse().ok()).unwrap_or_default();
    Ok(())
}

/// Numbers that travelled in one text.
fn numbers<T: std::str::FromStr, C: FromIterator<T>>(text: Option<&str>) -> C {
    text.unwrap_or_default()
        .split(',')
        .filter_map(|number| number.parse().ok())
        .collect()
}

fn event(row: &PgRow) -> Result<OutboxEvent, sqlx::Error> {
    Ok(OutboxEvent {
        bucket: row.try_get(0)?,
        id: row.try_get(1)?,
        lane_hash: row.try_get(2)?,
        event_id: row.try_get(3)?,
        attempts: row.try_get::<i32, _>(4)?.unsigned_abs(),
        topic: row.try_get(5)?,
        key: row.try_get(6)?,
        event_type: row.try_get(7)?,
        content_type: row.try_get(8)?,
        payload: row.try_get(9)?,
        headers: row.try_get(10)?,
        traceparent: row.try_get(11)?,
        tracestate: row.try_get(12)?,
    })
}
