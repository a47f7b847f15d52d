//! Claims, decisions and outbox events on Postgres.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared::hash;
use shared::id::EventId;
use shared::postgres::{Session, Trouble, certainly_not_committed, classify, connect, is_connection_lost};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{Executor, Row};

use crate::domain::dead_letter::Reason;
use crate::domain::outcome::{DecisionRow, OutboxEvent};
use crate::domain::record::Coordinates;
use crate::intake::inbox::{Claim, Inbox, InboxError, InboxTransaction, StandingClaim};

/// How the inbox uses its connections.
#[derive(Debug, Clone)]
pub struct InboxOptions {
    /// Where.
    pub connect: PgConnectOptions,
    /// With which session settings.
    pub session: Session,
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// A transaction of duplicates alone writes nothing, so its commit waits for no standby. With this,
    /// it waits for what it relies on before its offsets move.
    pub confirm_duplicates: bool,
}

/// The inbox of one consumer. Clones share their idle connections.
#[derive(Debug, Clone)]
pub struct PgInbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: InboxOptions,
    consumer_id: i16,
    topic_ids: HashMap<Arc<str>, i16>,
    /// One per worker at most: a transaction takes one and puts it back.
    idle: Mutex<Vec<PgConnection>>,
}

impl PgInbox {
    /// Looks up the numbers of the consumer and the topic, giving them where they have none.
    pub async fn open(options: InboxOptions, consumer: &str, topic: &Arc<str>) -> Result<Self, sqlx::Error> {
        let mut connection = open(&options).await?;
        let consumer_id = number(
            &mut connection,
            "insert into consumers (name) select $1 where not exists (select from consumers where name = $1) on conflict do nothing",
            "select consumer_id from consumers where name = $1",
            consumer,
        )
        .await?;
        let topic_id = number(
            &mut connection,
            "insert into kafka_topics (name) select $1 where not exists (select from kafka_topics where name = $1) on conflict do nothing",
            "select topic_id from kafka_topics where name = $1",
            topic,
        )
        .await?;
        let topic_ids = HashMap::from([(Arc::clone(topic), topic_id)]);
        let idle = Mutex::new(vec![connection]);
        Ok(Self {
            shared: Arc::new(Shared {
                options,
                consumer_id,
                topic_ids,
                idle,
            }),
        })
    }

    /// The consumer's number in the claims.
    pub fn consumer_id(&self) -> i16 {
        self.shared.consumer_id
    }
}

impl Inbox for PgInbox {
    type Transaction = PgTransaction;

    async fn begin(&self) -> Result<PgTransaction, InboxError> {
        let idle = self.shared.take();
        let mut connection = match idle {
            Some(connection) => connection,
            None => open(&self.shared.options).await.map_err(trouble)?,
        };
        if let Err(error) = connection.execute("begin").await {
            self.shared.forget_idle(); // whatever cut this one has cut them all, most likely
            return Err(trouble(error));
        }
        Ok(PgTransaction {
            connection: Some(connection),
            shared: Arc::clone(&self.shared),
            has_written: false,
        })
    }
}

/// One transaction, on a connection of its own. Dropped, it takes the connection with it.
#[derive(Debug)]
pub struct PgTransaction {
    connection: Option<PgConnection>,
    shared: Arc<Shared>,
    has_written: bool,
}

impl InboxTransaction for PgTransaction {
    async fn claim(&mut self, claims: &[Claim]) -> Result<Vec<EventId>, InboxError> {
        let ids: Vec<_> = claims.iter().map(|claim| claim.event_id.as_uuid()).collect();
        let days: Vec<_> = claims.iter().map(|claim| claim.event_id.unix_day()).collect();
        let topics: Vec<_> = claims.iter().map(|claim| self.shared.topic_id(&claim.source)).collect();
        let partitions: Vec<_> = claims.iter().map(|claim| claim.source.partition).collect();
        let offsets: Vec<_> = claims.iter().map(|claim| claim.source.offset).collect();
        let digests: Vec<_> = claims.iter().map(|claim| &claim.digest[..]).collect();
        let texts: Vec<_> = claims
            .iter()
            .map(|claim| claim.event_id_text.as_deref().map(storable))
            .collect();
        let reasons: Vec<_> = claims.iter().map(|claim| claim.set_aside.map(Reason::code)).collect();
        let query = sqlx::query_scalar(include_str!("queries/claim.sql"))
            .bind(self.shared.consumer_id)
            .bind(ids)
            .bind(days)
            .bind(topics)
            .bind(partitions)
            .bind(offsets)
            .bind(digests)
            .bind(texts)
            .bind(reasons);
        let claimed = query.fetch_all(self.connection()).await;
        let claimed = self.checked(claimed).await?;
        self.has_written |= !claimed.is_empty();
        Ok(claimed.into_iter().map(EventId::from_uuid).collect())
    }

    async fn take_over(&mut self, claim: &Claim) -> Result<bool, InboxError> {
        let query = sqlx::query(include_str!("queries/take_over.sql"))
            .bind(claim.event_id.as_uuid())
            .bind(claim.event_id.unix_day())
            .bind(self.shared.consumer_id)
            .bind(self.shared.topic_id(&claim.source))
            .bind(claim.source.partition)
            .bind(claim.source.offset)
            .bind(claim.set_aside.map(Reason::code))
            .bind(&claim.digest[..]);
        let taken = query.fetch_optional(self.connection()).await;
        let taken = self.checked(taken).await?.is_some();
        self.has_written |= taken;
        Ok(taken)
    }

    async fn set_aside(&mut self, claims: &[(EventId, Reason)]) -> Result<(), InboxError> {
        let ids: Vec<_> = claims.iter().map(|(event_id, _)| event_id.as_uuid()).collect();
        let days: Vec<_> = claims.iter().map(|(event_id, _)| event_id.unix_day()).collect();
        let reasons: Vec<_> = claims.iter().map(|(_, reason)| reason.code()).collect();
        let query = sqlx::query(include_str!("queries/set_aside.sql"))
            .bind(self.shared.consumer_id)
            .bind(ids)
            .bind(days)
            .bind(reasons);
        let done = query.execute(self.connection()).await;
        self.checked(done).await?;
        Ok(())
    }

    async fn conflicts(&mut self, ids: &[EventId]) -> Result<Vec<StandingClaim>, InboxError> {
        let days: Vec<_> = ids.iter().map(|event_id| event_id.unix_day()).collect();
        let ids: Vec<_> = ids.iter().map(|event_id| event_id.as_uuid()).collect();
        let query = sqlx::query(include_str!("queries/conflicts.sql"))
            .bind(self.shared.consumer_id)
            .bind(ids)
            .bind(days);
        let rows = query.fetch_all(self.connection()).await;
        let rows = self.checked(rows).await?;
        let standing: Result<Vec<_>, _> = rows.iter().map(|row| self.shared.standing_claim(row)).collect();
        self.checked(standing).await
    }

    async fn append(&mut self, decisions: &[DecisionRow], events: &[OutboxEvent]) -> Result<(), InboxError> {
        let d = |text: fn(&DecisionRow) -> &str| -> Vec<Cow<'_, str>> {
            decisions.iter().map(|row| storable(text(row))).collect()
        };
        let query = sqlx::query(include_str!("queries/append.sql"))
            .bind(self.shared.consumer_id)
            .bind(
                decisions
                    .iter()
                    .map(|row| row.decision_id.as_uuid())
                    .collect::<Vec<_>>(),
            )
            .bind(decisions.iter().map(|row| row.event_id.as_uuid()).collect::<Vec<_>>())
            .bind(d(|row| row.decision.ruling.outcome.name()))
            .bind(d(|row| row.decision.ruling.reason_code.name()))
            .bind(d(|row| &row.decision.ruling.rule))
            .bind(d(|row| &row.decision.ruling.reason))
            .bind(d(|row| &row.decision.policy_version))
            .bind(
                decisions
                    .iter()
                    .map(|row| &row.decision.policy_digest[..])
                    .collect::<Vec<_>>(),
            )
            .bind(d(|row| &row.input_id))
            .bind(decisions.iter().map(|row| &row.input_digest[..]).collect::<Vec<_>>())
            .bind(decisions.iter().map(|row| row.input.as_deref()).collect::<Vec<_>>())
            .bind(decisions.iter().map(|row| &row.output_digest[..]).collect::<Vec<_>>())
            .bind(decisions.iter().map(|row| &row.attributes[..]).collect::<Vec<_>>())
            .bind(events.iter().map(lane_hash).collect::<Vec<_>>())
            .bind(events.iter().map(bucket).collect::<Vec<_>>())
            .bind(events.iter().map(|event| event.event_id.as_uuid()).collect::<Vec<_>>())
            .bind(
                events
                    .iter()
                    .map(|event| self.shared.topic_id(&event.source))
                    .collect::<Vec<_>>(),
            )
            .bind(events.iter().map(|event| event.source.partition).collect::<Vec<_>>())
            .bind(events.iter().map(|event| event.source.offset).collect::<Vec<_>>())
            .bind(events.iter().map(|event| event.topic.as_str()).collect::<Vec<_>>())
            .bind(events.iter().map(|event| event.event_type.as_str()).collect::<Vec<_>>())
            .bind(
                events
                    .iter()
                    .map(|event| event.content_type.as_str())
                    .collect::<Vec<_>>(),
            )
            .bind(
                events
                    .iter()
                    .map(|event| event.traceparent.as_deref())
                    .collect::<Vec<_>>(),
            )
            .bind(
                events
                    .iter()
                    .map(|event| event.tracestate.as_deref())
                    .collect::<Vec<_>>(),
            )
            .bind(events.iter().map(|event| event.key.as_deref()).collect::<Vec<_>>())
            .bind(events.iter().map(|event| event.headers.encode()).collect::<Vec<_>>())
            .bind(events.iter().map(|event| event.payload.as_deref()).collect::<Vec<_>>());
        let appended = query.execute(self.connection()).await;
        self.checked(appended).await?;
        Ok(())
    }

    async fn commit(mut self) -> Result<(), InboxError> {
        // A transaction that drew no xid commits without a record in the log, and waits for no standby.
        let statement = if self.has_written || !self.shared.options.confirm_duplicates {
            "commit"
        } else {
            "select pg_current_xact_id(); commit"
        };
        match self.connection().execute(statement).await {
            Ok(_) => {
                self.put_back();
                Ok(())
            }
            Err(error) if certainly_not_committed(&error) => Err(trouble(error)),
            Err(error) => Err(InboxError::Unclear(error.into())),
        }
    }

    async fn roll_back(mut self) {
        if self.connection().execute("rollback").await.is_ok() {
            self.put_back();
        }
    }
}

impl PgTransaction {
    fn connection(&mut self) -> &mut PgConnection {
        self.connection
            .as_mut()
            .expect("a transaction has its connection until it ends")
    }

    /// Passes a result on. After an error of a server that is still there the connection is saved for
    /// the next transaction: bisecting should not pay for a new one each time.
    async fn checked<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, InboxError> {
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let is_alive = error.as_database_error().is_some() && !is_connection_lost(&error);
        if is_alive && self.connection().execute("rollback").await.is_ok() {
            self.put_back();
        }
        Err(trouble(error))
    }

    fn put_back(&mut self) {
        self.shared
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(self.connection.take());
    }
}

impl Shared {
    fn take(&self) -> Option<PgConnection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn topic_id(&self, source: &Coordinates) -> i16 {
        *self
            .topic_ids
            .get(&source.topic)
            .expect("records come from the topic that the inbox was opened for")
    }

    fn standing_claim(&self, row: &PgRow) -> Result<StandingClaim, sqlx::Error> {
        let topic: &str = row.try_get("topic")?;
        let topic = self
            .topic_ids
            .keys()
            .find(|known| &***known == topic)
            .map_or_else(|| topic.into(), Arc::clone);
        let digest: &[u8] = row.try_get("payload_digest")?;
        Ok(StandingClaim {
            event_id: EventId::from_uuid(row.try_get("event_id")?),
            source: Coordinates {
                topic,
                partition: row.try_get("kafka_partition")?,
                offset: row.try_get("kafka_offset")?,
            },
            digest: digest
                .try_into()
                .map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            is_set_aside: row.try_get("is_set_aside")?,
        })
    }
}

async fn open(options: &InboxOptions) -> Result<PgConnection, sqlx::Error> {
    match tokio::time::timeout(options.connect_timeout, connect(&options.connect, &options.session)).await {
        Ok(connected) => connected,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// The number of a name. Looked for first: an insert that changes nothing would still use one up.
async fn number(
    connection: &mut PgConnection,
    insert: &'static str,
    select: &'static str,
    name: &str,
) -> Result<i16, sqlx::Error> {
    sqlx::query(insert).bind(name).execute(&mut *connection).await?;
    sqlx::query_scalar(select).bind(name).fetch_one(connection).await
}

fn trouble(error: sqlx::Error) -> InboxError {
    match classify(&error) {
        Trouble::Event { constraint, code } => {
            let code = constraint.map_or(code.clone(), |constraint| format!("{code} {constraint}"));
            InboxError::Data {
                code,
                source: error.into(),
            }
        }
        Trouble::Infrastructure if sqlstate(&error).as_deref() == Some("55P03") => {
            InboxError::LockTimeout(error.into())
        }
        Trouble::Infrastructure => InboxError::Unavailable(error.into()),
    }
}

fn sqlstate(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(|database| database.code())
}

/// Columns of type text hold everything but NUL, which is legal in JSON; the bytes beside them keep it.
fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}").into()
    } else {
        text.into()
    }
}

fn lane_hash(event: &OutboxEvent) -> i32 {
    hash::lane_hash(&event.topic, event.key.as_deref(), event.event_id.as_uuid())
}

fn bucket(event: &OutboxEvent) -> i16 {
    hash::bucket_of(event.key.as_deref(), event.event_id.as_uuid())
}
