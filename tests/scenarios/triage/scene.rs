//! What the scenarios of the triage service share: topics and tables of their own, records, gates, ends.

use std::fmt::Display;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use harness::proxy::{Framing, Proxy};
use harness::stack::unique;
use harness::wait::{self, Seen};
use harness::{Audit, Database, Read, Record, Running, Service, Stack, Triage, Verdict, topics};
use serde_json::json;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

/// How long anything may take that takes a second on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// How long a service may take to drain.
const DRAINED: Duration = Duration::from_secs(25);
/// The broker's least: a member that is silent for so long is out of its group.
pub(crate) const SESSION: Duration = Duration::from_millis(6_000);

/// Events that were claimed, decided or not.
pub(crate) const CLAIMS: &str = "select count(*) from processed_events";
/// Claims that were set aside.
pub(crate) const SET_ASIDE: &str = "select count(*) from processed_events where outcome = 'SET_ASIDE'";
/// Decisions of all consumers.
pub(crate) const DECISIONS: &str = "select count(*) from decisions";
/// Rows of the outbox.
pub(crate) const OUTBOX: &str = "select count(*) from outbox_events";

/// One scenario's input, output and tables, on the stack that all of them share.
pub(crate) struct Scene {
    pub(crate) stack: &'static Stack,
    /// Where the judge and the test find Kafka.
    pub(crate) brokers: String,
    pub(crate) database: Database,
    /// The consumer that is judged at the end.
    pub(crate) triage: Triage,
}

impl Scene {
    /// Topics and a database of the test's own.
    pub(crate) async fn new(test: &str, partitions: i32) -> anyhow::Result<Self> {
        let stack = Stack::shared().await?;
        Self::with_database(stack, stack.database(test).await?, test, partitions).await
    }

    /// Topics of the test's own, with a database that it has chosen.
    pub(crate) async fn with_database(
        stack: &'static Stack,
        database: Database,
        test: &str,
        partitions: i32,
    ) -> anyhow::Result<Self> {
        // The records of some tests are weeks old by their timestamps, and must not go for their age.
        let kept = [("retention.ms", "-1")];
        let letters = [kept[0], ("max.message.bytes", "1114124")];
        let (output, dead_letter) = (format!("{test}-out"), format!("{test}-dlt"));
        let (input, output, dead_letter) = tokio::try_join!(
            stack.topic(test, partitions, &kept),
            stack.topic(&output, 3, &[]),
            stack.topic(&dead_letter, 1, &letters),
        )?;
        let group = unique(test);
        let triage = Triage {
            consumer: group.clone(),
            group,
            inputs: vec![input],
            output,
            dead_letter,
        };
        Ok(Self {
            stack,
            brokers: stack.brokers(),
            database,
            triage,
        })
    }

    pub(crate) fn input(&self) -> &str {
        &self.triage.inputs[0]
    }

    /// A triage service of this scene, with times short enough for a test.
    pub(crate) fn service(&self, name: &str) -> Service {
        Service::triage(name)
            .set("KAFKA__BROKERS", &self.brokers)
            .set("KAFKA__GROUP", &self.triage.group)
            .set("KAFKA__PROPERTIES__SESSION_TIMEOUT_MS", SESSION.as_millis())
            .set("KAFKA__PROPERTIES__HEARTBEAT_INTERVAL_MS", 300)
            .set("KAFKA__PROPERTIES__AUTO_COMMIT_INTERVAL_MS", 100)
            .set("KAFKA__PROPERTIES__STATISTICS_INTERVAL_MS", 500)
            .set("KAFKA__PROPERTIES__RECONNECT_BACKOFF_MAX_MS", 500)
            .set("DATABASE__URL", &self.database.url)
            .set("TOPICS__INPUT", self.input())
            .set("TOPICS__OUTPUT", &self.triage.output)
            .set("TOPICS__DEAD_LETTER", &self.triage.dead_letter)
            .set("INTAKE__RETRY_INITIAL_MS", 50)
            .set("INTAKE__RETRY_MAX_MS", 300)
    }

    /// A running service with nothing special about it.
    pub(crate) async fn start(&self, name: &str) -> anyhow::Result<Running> {
        start(&self.service(name)).await
    }

    /// Writes records to the input; where each one lies.
    pub(crate) async fn send(&self, records: Vec<Record>) -> anyhow::Result<Vec<(i32, i64)>> {
        topics::produce(&self.brokers, self.input(), records).await
    }

    /// How a log names a record of the input.
    pub(crate) fn place(&self, (partition, offset): (i32, i64)) -> String {
        format!("{}[{partition}]@{offset}", self.input())
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<PgConnection> {
        self.database.connect().await
    }

    /// Runs statements.
    pub(crate) async fn run(&self, statements: &'static str) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        sqlx::raw_sql(statements)
            .execute(&mut connection)
            .await
            .context(statements)?;
        Ok(connection.close().await?)
    }

    /// One number out of the database.
    pub(crate) async fn number(&self, query: &'static str) -> anyhow::Result<i64> {
        let mut connection = self.connect().await?;
        let number = sqlx::query_scalar(query)
            .fetch_one(&mut connection)
            .await
            .context(query)?;
        connection.close().await?;
        Ok(number)
    }

    /// Waits until a number out of the database fulfils a condition.
    pub(crate) async fn until(&self, query: &'static str, holds: impl Fn(i64) -> bool) -> anyhow::Result<i64> {
        wait::until(query, SOON, || async {
            Ok(Seen::when(self.number(query).await?, |number| holds(*number)))
        })
        .await
    }

    /// Waits until the group has committed everything that is on the input.
    pub(crate) async fn until_passed(&self) -> anyhow::Result<()> {
        wait::until("the group to stand at the end of its input", SOON, || async {
            let committed = self.committed().await?;
            Ok(Seen::when(committed, |all| {
                all.iter().all(topics::Committed::is_at_end)
            }))
        })
        .await?;
        Ok(())
    }

    /// Where the group stands.
    pub(crate) async fn committed(&self) -> anyhow::Result<Vec<topics::Committed>> {
        topics::committed(&self.brokers, &self.triage.group, self.input()).await
    }

    /// A way to this scene's Postgres through a proxy, with the address that a service takes.
    pub(crate) fn postgres_through_proxy(&self) -> anyhow::Result<(Proxy, String)> {
        let server = self.stack.postgres().context("the server is ours")?;
        let proxy = Proxy::to(server.port(), Framing::Raw)?;
        let url = format!("postgres://postgres@{}/{}", proxy.address(), self.database.name);
        Ok((proxy, url))
    }

    /// The dead letters as they were published.
    pub(crate) async fn dead_letters(&self) -> anyhow::Result<Vec<Read>> {
        self.publish().await?;
        topics::read_all(&self.brokers, &self.triage.dead_letter).await
    }

    /// A publisher runs until nothing is PENDING; however much it is, some of it must go in every while.
    pub(crate) async fn publish(&self) -> anyhow::Result<()> {
        let publisher = Service::publisher("publishes-what-is-left")
            .set("KAFKA__BROKERS", &self.brokers)
            .set("DATABASE__URL", &self.database.url)
            .start()
            .await?;
        let mut before = i64::MAX;
        while before > 0 {
            before = self
                .until("select count(*) from outbox_events where status = 'PENDING'", |count| {
                    count < before
                })
                .await?;
        }
        let code = publisher.terminate(DRAINED).await?;
        harness::process::expect_code("the publisher", code, 0)
    }

    /// Drains the services, publishes what is left and judges it.
    pub(crate) async fn end(self, services: Vec<Running>) -> anyhow::Result<Verdict> {
        drain(services).await?;
        self.publish().await?;
        let verdict = self.judge(&self.triage).await?;
        self.stack.drop_database(&self.database).await?;
        Ok(verdict)
    }

    /// What must hold for a consumer whose services have ended and whose outcomes are published.
    pub(crate) async fn judge(&self, triage: &Triage) -> anyhow::Result<Verdict> {
        let verdict = Audit::new(&self.brokers, &self.database)
            .triage(triage.clone())
            .run()
            .await?;
        verdict.assert_clean();
        let mut connection = self.connect().await?;
        let inversions: i64 = sqlx::query_scalar(
            "select count(*) from (select source_offset, lag(source_offset) over same as before from outbox_events \
             where topic = $1 window same as (partition by key, source_topic_id, source_partition order by id)) as o \
             where before >= source_offset",
        )
        .bind(&triage.output)
        .fetch_one(&mut connection)
        .await?;
        anyhow::ensure!(inversions == 0, "{inversions} ids of a key do not follow the offsets");
        Ok(verdict)
    }
}

/// Starts a service and waits until it is ready.
pub(crate) async fn start(service: &Service) -> anyhow::Result<Running> {
    let running = service.start().await?;
    running.ready(SOON).await?;
    Ok(running)
}

/// SIGTERM to all of them; each must end with 0.
pub(crate) async fn drain(services: Vec<Running>) -> anyhow::Result<()> {
    for service in services {
        let name = service.name().to_owned();
        let code = service.terminate(DRAINED).await?;
        harness::process::expect_code(&name, code, 0)?;
    }
    Ok(())
}

/// A metric, 0 where it is not reported.
pub(crate) async fn metric(service: &Running, name: &str) -> anyhow::Result<u64> {
    Ok(service.metric(name).await?.unwrap_or(0.0) as u64)
}

/// Waits until a metric is at least so much.
pub(crate) async fn until_metric(service: &Running, name: &str, least: u64) -> anyhow::Result<u64> {
    Ok(service.until_metric(name, SOON, |value| value >= least as f64).await? as u64)
}

/// Waits until readiness says no, with this reason.
pub(crate) async fn until_not_ready(service: &Running, reason: &str) -> anyhow::Result<()> {
    wait::until(
        &format!("{} to be not ready: {reason}", service.name()),
        SOON,
        || async {
            let answer = service.get("/readyz").await?;
            let says_so = answer.status == 503 && answer.body.contains(reason);
            Ok(if says_so {
                Seen::Yes(())
            } else {
                Seen::NotYet(format!("{} {}", answer.status, answer.body))
            })
        },
    )
    .await
}

/// An envelope as producers write it.
pub(crate) fn envelope(event_id: impl Display, key: &str, text: &str) -> serde_json::Value {
    json!({
        "eventId": event_id.to_string(),
        "eventType": "triagemate.ingest.input-received",
        "eventVersion": 1,
        "occurredAt": "2026-01-15T08:30:00.123Z",
        "payload": {"inputId": key, "channel": "chat", "text": text, "receivedAtEpochMs": 1_768_466_000_123_i64},
    })
}

/// An input that can be decided.
pub(crate) fn event(event_id: impl Display, key: &str, text: &str) -> Record {
    Record::new(key, envelope(event_id, key, text).to_string())
}

/// New events on `keys` keys, with random ids.
pub(crate) fn events(count: usize, keys: usize) -> Vec<Record> {
    (0..count)
        .map(|n| {
            event(
                Uuid::new_v4(),
                &format!("customer-{}", n % keys),
                &format!("message {n}"),
            )
        })
        .collect()
}

/// Milliseconds since 1970, so many days from now.
pub(crate) fn days_from_now(days: i64) -> i64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    now.as_millis() as i64 + days * 86_400_000
}

/// A version 7 id of a clock that is so many days ahead.
pub(crate) fn id_of_day(days: i64) -> Uuid {
    let tail = Uuid::new_v4().into_bytes();
    let tail = tail.last_chunk::<10>().expect("16 bytes have a last chunk of 10");
    uuid::Builder::from_unix_timestamp_millis(days_from_now(days).unsigned_abs(), tail).into_uuid()
}

/// Where a closed gate stops a transaction of the service.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    /// With claims in hand and nothing written.
    BeforeOutbox,
    /// Inside COMMIT, before it counts.
    InsideCommit,
}

/// Holds up every transaction of the service at one place until it is opened.
pub(crate) struct Gate {
    holder: PgConnection,
}

impl Gate {
    pub(crate) async fn close(scene: &Scene, stop: Stop) -> anyhow::Result<Self> {
        let mut holder = scene.connect().await?;
        let trigger = match stop {
            Stop::BeforeOutbox => {
                "create trigger gate before insert on outbox_events for each statement execute function gate()"
            }
            Stop::InsideCommit => {
                "create constraint trigger gate after insert on decisions deferrable initially deferred \
                 for each row execute function gate()"
            }
        };
        for statement in [
            "create function gate() returns trigger language plpgsql as \
             $$ begin perform pg_advisory_xact_lock_shared(1); return null; end $$",
            trigger,
            "select pg_advisory_lock(1)",
        ] {
            sqlx::raw_sql(statement).execute(&mut holder).await.context(statement)?;
        }
        Ok(Self { holder })
    }

    /// Waits until a transaction stands at the gate.
    pub(crate) async fn until_somebody_waits(&mut self) -> anyhow::Result<()> {
        let began = std::time::Instant::now();
        loop {
            let waiting: i64 =
                sqlx::query_scalar("select count(*) from pg_locks where locktype = 'advisory' and objid = 1 and not granted and database = (select oid from pg_database where datname = current_database())")
                    .fetch_one(&mut self.holder)
                    .await?;
            if waiting > 0 {
                return Ok(());
            }
            anyhow::ensure!(began.elapsed() < SOON, "nobody came to the gate");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Lets everybody through, now and later.
    pub(crate) async fn open(mut self) -> anyhow::Result<()> {
        sqlx::raw_sql("select pg_advisory_unlock(1)")
            .execute(&mut self.holder)
            .await?;
        Ok(self.holder.close().await?)
    }
}

/// Postgres refuses decisions whose input says "poison", with a data error, until [`CURE`].
pub(crate) const POISON: &str = "create function poison() returns trigger language plpgsql as $$ \
    begin \
        if position('poison'::bytea in new.input) > 0 then \
            raise exception 'a data error' using errcode = '22023'; \
        end if; \
        return new; \
    end $$; \
    create trigger poison before insert on decisions for each row execute function poison()";
/// The cause of [`POISON`] is gone.
pub(crate) const CURE: &str = "drop trigger poison on decisions";
