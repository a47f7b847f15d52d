//! `shared::outbox` and the doorbell inside other people's transactions.

use std::time::{Duration, Instant};

use harness::wait::{self, Seen};
use rand::seq::SliceRandom;
use shared::doorbell::{CHANNEL, Doorbell};
use shared::headers::Headers;
use shared::outbox::{self, NewEvent};
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgListener};
use tokio::task::JoinSet;

use crate::outbox::fixture::{Outbox, TOPIC};

fn event(key: &str, label: &str) -> NewEvent {
    NewEvent::new(TOPIC, "x", label).key(key)
}

#[tokio::test]
async fn event_exists_exactly_when_its_transaction_commits() -> anyhow::Result<()> {
    // given
    let outbox = Outbox::new("atomic").await?;
    let mut user = outbox.connect().await?;
    sqlx::raw_sql("create table orders (id integer primary key)")
        .execute(&mut user)
        .await?;
    for is_committed in [false, true] {
        // when
        let mut tx = user.begin().await?;
        sqlx::raw_sql("insert into orders values (7)").execute(&mut *tx).await?;
        outbox::enqueue(&mut tx, &event("K", "placed")).await?;
        if is_committed {
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
        // then
        let both = "select (select count(*) from orders) * 10 + (select count(*) from outbox_events)";
        assert_eq!(outbox.number(both).await?, if is_committed { 11 } else { 0 });
    }
    outbox.remove().await
}

#[tokio::test]
async fn events_of_one_call_are_stored_in_its_order() -> anyhow::Result<()> {
    // given many keys in no order, so that nothing but the place can be the order
    let outbox = Outbox::new("order").await?;
    let mut user = outbox.connect().await?;
    let labels: Vec<String> = (0..500).map(|n| format!("{}", (n * 7919) % 500)).collect();
    let events: Vec<NewEvent> = labels
        .iter()
        .map(|label| event(&format!("key {label}"), label))
        .collect();
    // when
    let mut tx = user.begin().await?;
    outbox::enqueue_all(&mut tx, &events).await?;
    outbox::enqueue_all(&mut tx, &[]).await?;
    tx.commit().await?;
    // then
    let stored: Vec<String> = sqlx::query_scalar("select convert_from(payload, 'UTF8') from outbox_events order by id")
        .fetch_all(&mut user)
        .await?;
    assert_eq!(stored, labels);
    outbox.remove().await
}

#[tokio::test]
async fn every_field_is_stored_as_given() -> anyhow::Result<()> {
    let outbox = Outbox::new("fields").await?;
    let mut user = outbox.connect().await?;
    let mut headers = Headers::new();
    headers.push("tenant", Some("7"));
    headers.push("none", None::<Vec<u8>>);
    let full = event("K", "full")
        .headers(headers.clone())
        .content_type("text/plain")
        .trace_context("00-a", Some("b=c".to_owned()));
    let mut tx = user.begin().await?;
    outbox::enqueue_all(
        &mut tx,
        &[
            full,
            NewEvent::tombstone(TOPIC, "gone", "K"),
            NewEvent::new(TOPIC, "x", "no key"),
        ],
    )
    .await?;
    tx.commit().await?;
    let rows: Vec<String> = sqlx::query_scalar(
        "select concat_ws('|', convert_from(key, 'UTF8'), convert_from(payload, 'UTF8'), event_type, content_type, traceparent, \
                          tracestate, is_ordered, outbox_bucket(key, event_id) = bucket, outbox_lane_hash(topic, key, event_id) = lane_hash) \
           from outbox_events order by id",
    )
    .fetch_all(&mut user)
    .await?;
    assert_eq!(
        rows,
        [
            "K|full|x|text/plain|00-a|b=c|f|t|t",
            "K|gone|application/json|f|t|t",
            "no key|x|application/json|f|t|t"
        ]
    );
    let stored: Vec<u8> = sqlx::query_scalar("select headers from outbox_events where headers is not null")
        .fetch_one(&mut user)
        .await?;
    assert_eq!(Headers::decode(&stored)?, headers);
    outbox.remove().await
}

#[tokio::test]
async fn ordered_transactions_of_one_key_take_turns() -> anyhow::Result<()> {
    // given a transaction that has enqueued and stays open
    let outbox = Outbox::new("turns").await?;
    let (mut first, mut second) = (outbox.connect().await?, outbox.connect().await?);
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut second)
        .await?;
    let mut tx = first.begin().await?;
    outbox::enqueue_ordered(&mut tx, &[event("K", "first")]).await?;
    // when another enqueues for its key
    let other = tokio::spawn(async move {
        let mut tx = second.begin().await?;
        outbox::enqueue_ordered(&mut tx, &[event("K", "second"), event("other", "beside")]).await?;
        tx.commit().await?;
        anyhow::Ok(())
    });
    // then it waits, before it has drawn an id
    wait::until("the second to wait", Duration::from_secs(10), || async {
        let mut observer = outbox.connect().await?;
        let wait: Option<String> = sqlx::query_scalar("select wait_event from pg_stat_activity where pid = $1")
            .bind(pid)
            .fetch_one(&mut observer)
            .await?;
        Ok(Seen::when(wait, |wait| wait.as_deref() == Some("advisory")))
    })
    .await?;
    outbox::enqueue_ordered(&mut tx, &[event("K", "first again")]).await?;
    tx.commit().await?;
    other.await??;
    let rows = outbox.rows().await?;
    assert_eq!(
        rows,
        [
            "first 0 PENDING",
            "first again 0 PENDING",
            "second 0 PENDING",
            "beside 0 PENDING"
        ]
    );
    assert_eq!(
        outbox
            .number("select count(*) from outbox_events where is_ordered")
            .await?,
        4
    );
    outbox.remove().await
}

#[tokio::test]
async fn ordered_transactions_of_many_keys_do_not_deadlock() -> anyhow::Result<()> {
    // given eight writers, each with all keys in an order of its own
    const ROUNDS: usize = 25;
    let outbox = Outbox::new("no_deadlock").await?;
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let mut user = outbox.connect().await?;
        writers.spawn(async move {
            for round in 0..ROUNDS {
                let mut events: Vec<NewEvent> = (0..6)
                    .map(|key| event(&format!("key {key}"), &format!("{writer}.{round}")))
                    .collect();
                events.shuffle(&mut rand::rng());
                let mut tx = user.begin().await?;
                outbox::enqueue_ordered(&mut tx, &events).await?;
                tx.commit().await?;
            }
            anyhow::Ok(())
        });
    }
    // when all of them have taken their turns
    while let Some(done) = writers.join_next().await {
        done??; // a deadlock would end one with 40P01
    }
    // then the ids of a key are in the order of the turns: no two transactions overlap
    let overlaps = "select count(*) from (select key, inserted_xid, min(id) as low, max(id) as high from outbox_events group by 1, 2) a \
                      join (select key, inserted_xid, min(id) as low, max(id) as high from outbox_events group by 1, 2) b \
                        using (key) where a.inserted_xid < b.inserted_xid and a.low < b.low and b.low < a.high";
    assert_eq!(outbox.number(overlaps).await?, 0);
    assert_eq!(outbox.number("select count(*) from outbox_events").await?, 8 * 25 * 6);
    outbox.remove().await
}

#[tokio::test]
async fn refused_event_leaves_the_transaction_whole() -> anyhow::Result<()> {
    let outbox = Outbox::new("refused").await?;
    let mut user = outbox.connect().await?;
    let mut tx = user.begin().await?;
    let bad = NewEvent::new("white space", "x", "bad");
    outbox::enqueue_all(&mut tx, &[event("K", "good"), bad])
        .await
        .expect_err("Kafka has no such topic");
    outbox::enqueue(&mut tx, &event("K", "good")).await?;
    tx.commit().await?;
    assert_eq!(outbox.rows().await?, ["good 0 PENDING"]);
    outbox.remove().await
}

#[tokio::test]
async fn doorbell_reaches_a_listener() -> anyhow::Result<()> {
    let outbox = Outbox::new("doorbell").await?;
    let mut listener = PgListener::connect(outbox.url()).await?;
    listener.listen(CHANNEL).await?;
    let doorbell = Doorbell::new(outbox.options());
    for _ in 0..2 {
        doorbell.ring();
        let heard = tokio::time::timeout(Duration::from_secs(10), listener.recv()).await??;
        assert_eq!(heard.channel(), CHANNEL);
    }
    outbox.remove().await
}

#[tokio::test]
async fn doorbell_of_an_absent_server_holds_nobody_up() {
    // given an address that nobody listens at
    let port = harness::ports::free().expect("a port");
    let nowhere = PgConnectOptions::new()
        .host("127.0.0.1")
        .port(port)
        .username("u")
        .database("d");
    let doorbell = Doorbell::new(nowhere);
    // when it is rung again and again
    let began = Instant::now();
    for _ in 0..10_000 {
        doorbell.ring();
        tokio::task::yield_now().await;
    }
    // then nobody has waited for it
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
