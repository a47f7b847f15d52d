//! The publisher when nothing is broken: shares, order, records, and what it costs to wait.

use std::time::{Duration, Instant};

use harness::topics;
use shared::headers::Headers;
use shared::outbox::NewEvent;

use crate::publisher::{Load, Outbox, SOON, cpu_of, event};

#[tokio::test]
async fn publishers_share_buckets_and_publish_once_in_order_while_instances_come_and_go() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::shared("shares").await?;
    let topic = outbox.topic("shares", 6, &[]).await?;
    let (first, second) = (
        outbox.publisher("first").start().await?,
        outbox.publisher("second").start().await?,
    );
    let load = Load::start(&outbox, &topic, 2, 40, Duration::from_millis(4));
    holds(&first, 32.0).await?;
    holds(&second, 32.0).await?;
    load.more(1_000).await?;

    // when
    let third = outbox.publisher("third").start().await?;
    holds(&third, 20.0).await?; // what is left when the others keep their share of 22
    load.more(1_000).await?;
    let code = first.terminate(Duration::from_secs(20)).await?;
    holds(&second, 32.0).await?;
    load.more(1_000).await?;

    // then
    assert_eq!(code, 0);
    let written = load.stop().await?;
    outbox.until_nothing_waits().await?;
    let verdict = outbox.end(vec![second, third], outbox.audit()).await?;
    assert_eq!(verdict.published, written);
    assert_eq!(
        outbox
            .number("select count(*) from outbox_leases where lock_owner is not null")
            .await?,
        0
    );
    assert_eq!(outbox.number("select count(*) from outbox_instances").await?, 0);
    Ok(())
}

async fn holds(publisher: &harness::Running, at_least: f64) -> anyhow::Result<()> {
    publisher
        .until_metric("outbox_buckets_held", SOON, |held| {
            held >= at_least && held <= at_least + 2.0
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_record_is_what_its_row_says() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::shared("records").await?;
    let topic = outbox.topic("records", 5, &[]).await?;
    let mut headers = Headers::new();
    headers.push("dlt-reason", Some("UNDECODABLE"));
    headers.push("none", None::<Vec<u8>>);
    headers.push("dlt-reason", Some("twice"));
    let keyed = event(&topic, "21", "{}")
        .content_type("application/cloudevents+json")
        .headers(headers)
        .trace_context(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            Some("vendor=1".to_owned()),
        );
    let bytes = NewEvent::new(topic.as_str(), "bytes", vec![0, 255, 0]).key(vec![0_u8, 0xff]);
    let keyless = NewEvent::new(topic.as_str(), "keyless", "no key");
    let tombstone = NewEvent::tombstone(topic.as_str(), "gone", "foobar");
    let empty = NewEvent::new(topic.as_str(), "empty", Vec::new()).key(Vec::new());
    let events = [keyed, bytes, keyless, tombstone, empty];

    // when
    let publisher = outbox.publisher("publisher").start().await?;
    outbox.write(&events).await?;
    outbox.until_statuses(&[("PUBLISHED", 5)]).await?;

    // then
    let reads = topics::read_all(&outbox.stack.brokers(), &topic).await?;
    let of = |event: &NewEvent| {
        reads
            .iter()
            .find(|read| read.header("event-id") == Some(&event.id().to_string()))
            .expect("published")
    };
    let [keyed, bytes, keyless, tombstone, empty] = &events;
    // Java's murmur2 of "21" is -973932308, of "foobar" -790332482.
    assert_eq!(of(keyed).partition, (-973_932_308_i32 & 0x7fff_ffff) % 5);
    assert_eq!(of(tombstone).partition, (-790_332_482_i32 & 0x7fff_ffff) % 5);
    assert_eq!(
        (of(keyed).key.as_deref(), of(keyed).value.as_deref()),
        (Some(&b"21"[..]), Some(&b"{}"[..]))
    );
    assert_eq!(
        (of(bytes).key.as_deref(), of(bytes).value.as_deref()),
        (Some(&[0, 0xff][..]), Some(&[0, 255, 0][..]))
    );
    assert_eq!(
        (of(keyless).key.as_deref(), of(keyless).value.as_deref()),
        (None, Some(&b"no key"[..]))
    );
    assert_eq!(
        (of(tombstone).key.as_deref(), of(tombstone).value.as_deref()),
        (Some(&b"foobar"[..]), None)
    );
    assert_eq!(
        (of(empty).key.as_deref(), of(empty).value.as_deref()),
        (Some(&b""[..]), Some(&b""[..]))
    );
    let shown: Vec<String> = of(keyed)
        .headers
        .iter()
        .map(|(name, value)| {
            format!(
                "{name}={}",
                value.as_deref().map_or("null".into(), String::from_utf8_lossy)
            )
        })
        .collect();
    let (id, epoch) = (
        of(keyed).header("outbox-id").expect("outbox-id"),
        of(keyed).header("outbox-epoch").expect("outbox-epoch"),
    );
    assert!(id.parse::<i64>().is_ok() && epoch.parse::<i64>()? > 0);
    assert_eq!(
        shown,
        [
            "dlt-reason=UNDECODABLE".to_owned(),
            "none=null".to_owned(),
            "dlt-reason=twice".to_owned(),
            format!("event-id={}", keyed.id()),
            "event-type=test.happened".to_owned(),
            "content-type=application/cloudevents+json".to_owned(),
            format!("outbox-id={id}"),
            format!("outbox-epoch={epoch}"),
            "traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
            "tracestate=vendor=1".to_owned(),
        ]
    );
    assert_eq!(of(tombstone).header("traceparent"), None);
    outbox.end(vec![publisher], outbox.audit()).await?;
    Ok(())
}

#[tokio::test]
async fn an_idle_publisher_costs_little_and_publishes_a_lone_row_soon() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::shared("idle").await?;
    let topic = outbox.topic("idle", 1, &[]).await?;
    // As it is delivered, not with the short times of the other scenarios.
    let publisher = harness::Service::publisher("idle")
        .set("KAFKA__BROKERS", &outbox.brokers)
        .set("DATABASE__URL", &outbox.database.url)
        .start()
        .await?;
    publisher.ready(SOON).await?; // ready although there is nothing to publish
    let mut connection = outbox.connect().await?;
    lone_row(&mut connection, &topic).await?;

    // when: nothing happens for a while
    const IDLE: Duration = Duration::from_secs(5);
    const TRANSACTIONS: &str =
        "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()";
    tokio::time::sleep(Duration::from_secs(2)).await; // an idle time has no condition to wait for
    // Autovacuum visits every database, and so do these questions: one without a publisher shows how often.
    let deserted = Outbox::shared("deserted").await?;
    let transactions = async || anyhow::Ok(outbox.number(TRANSACTIONS).await? - deserted.number(TRANSACTIONS).await?);
    let (cpu, before) = (cpu_of(&publisher)?, transactions().await?);
    tokio::time::sleep(IDLE).await;
    let (cpu, transactions) = (cpu_of(&publisher)? - cpu, transactions().await? - before);

    // then
    eprintln!("idle for {IDLE:?}: {transactions} transactions, {cpu:?} of processor time");
    assert!(transactions < 10 * 5, "{transactions} transactions in {IDLE:?}");
    assert!(cpu < IDLE / 20, "{cpu:?} of processor time in {IDLE:?}");

    // when: rows come alone, and no doorbell rings
    let mut polled = Vec::new();
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_millis(300)).await; // until polling is slow again
        polled.push(lone_row(&mut connection, &topic).await?);
    }

    // then
    let polled = median(polled);
    eprintln!("a lone row is settled {polled:?} after its commit, without the doorbell");
    assert!(polled < Duration::from_secs(1), "a poll comes each 250 ms: {polled:?}");
    outbox.end(vec![publisher], outbox.audit()).await?;
    Ok(())
}

#[tokio::test]
async fn the_doorbell_wakes_a_publisher_that_polls_seldom() -> anyhow::Result<()> {
    // given: pauses that double up to a minute
    let outbox = Outbox::shared("doorbell").await?;
    let topic = outbox.topic("doorbell", 1, &[]).await?;
    let publisher = outbox
        .publisher("publisher")
        .set("RELAY__POLL_MAX_MS", 60_000)
        .set("RELAY__SWEEP_SECONDS", 600)
        .start()
        .await?;
    publisher.ready(SOON).await?;
    let doorbell = outbox.doorbell()?;
    let mut connection = outbox.connect().await?;
    lone_row(&mut connection, &topic).await?;

    // when
    let mut rung = Vec::new();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(5)).await; // the pause is between 4 and 8 s by then
        let began = Instant::now();
        insert(&mut connection, &topic).await?;
        doorbell.ring();
        rung.push(until_settled(&mut connection, began).await?);
    }

    // then
    let rung = median(rung);
    eprintln!("a lone row is settled {rung:?} after its commit, with the doorbell");
    assert!(rung < Duration::from_secs(1), "{rung:?}, which is what polling takes");
    outbox.end(vec![publisher], outbox.audit()).await?;
    Ok(())
}

async fn insert(connection: &mut sqlx::postgres::PgConnection, topic: &str) -> anyhow::Result<()> {
    sqlx::query("select outbox_enqueue($1, 'key', 'lone', 'value')")
        .bind(topic)
        .execute(connection)
        .await?;
    Ok(())
}

/// From the commit until the row is PUBLISHED, which is later than its acknowledgement.
async fn until_settled(connection: &mut sqlx::postgres::PgConnection, began: Instant) -> anyhow::Result<Duration> {
    loop {
        let waits: bool = sqlx::query_scalar("select exists (select from outbox_events where status = 'PENDING')")
            .fetch_one(&mut *connection)
            .await?;
        if !waits {
            return Ok(began.elapsed());
        }
        anyhow::ensure!(began.elapsed() < SOON, "a lone row is not published");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn lone_row(connection: &mut sqlx::postgres::PgConnection, topic: &str) -> anyhow::Result<Duration> {
    let began = Instant::now();
    insert(connection, topic).await?;
    until_settled(connection, began).await
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
