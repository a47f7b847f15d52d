//! Brokers that a client has forgotten, or of which it hears nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::kafka::KafkaOptions;
use harness::proxy::{Flow, Proxy};
use harness::{Ability, Stack};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;
use shared::kafka::{BrokerWatch, FORGOTTEN, Finding, remind};

use crate::publisher::{Load, Outbox, SOON, until_readiness};

const PUBLISHED: &str = "select count(*) from outbox_events where status = 'PUBLISHED'";
/// A client that asks for metadata this often meets an answer without brokers soon.
const REFRESH_MS: u64 = 200;
/// Many partitions, since it is a race: the longer the answer takes to read, the surer the client forgets.
const PARTITIONS: i32 = 48;
const OWN_KAFKA: &str = "a stack with routes has its own Kafka";

/// A bare client that only watches itself.
#[derive(Default)]
struct Bare {
    brokers: BrokerWatch,
    has_forgotten: AtomicBool,
}

impl ClientContext for Bare {
    fn stats(&self, statistics: Statistics) {
        let has_forgotten = self.brokers.see(&statistics) == Finding::Forgotten;
        self.has_forgotten.store(has_forgotten, Ordering::SeqCst);
    }
}

impl ProducerContext for Bare {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// What the guard is for. Once the library mends it (its issue 5301), this fails and the guard may go.
#[tokio::test]
async fn a_bare_client_that_forgot_every_broker_stands_still_for_ever() -> anyhow::Result<()> {
    // given
    let stack = Stack::shared().await?;
    if stack.skips("a_bare_client_that_forgot", &[Ability::BrokerRoutes]) {
        return Ok(());
    }
    let topic = stack.topic("forgotten-bare", PARTITIONS, &[]).await?;
    let route = stack.kafka().expect(OWN_KAFKA).free_route(2 * SOON).await?;
    let proxy = Proxy::for_kafka(&route)?;
    let client: ThreadedProducer<Bare> = ClientConfig::new()
        .set("bootstrap.servers", proxy.address())
        .set("statistics.interval.ms", "500")
        .set("topic.metadata.refresh.interval.ms", REFRESH_MS.to_string())
        .create_with_context(Bare::default())?;
    let asked = |within| client.client().fetch_metadata(Some(&topic), within);
    asked(SOON)?;
    let record = BaseRecord::<(), str>::to(&topic).payload("so that it asks for this topic again");
    client.send(record).map_err(|(error, _)| error)?;

    // when
    let began = Instant::now();
    let has_forgotten = || Ok(client.context().has_forgotten.load(Ordering::SeqCst));
    proxy
        .hide_brokers_until("the client to forget every broker", 2 * SOON, has_forgotten)
        .await?;
    eprintln!("forgotten after {:?}, {} answers", began.elapsed(), proxy.emptied());

    // then: nothing is wrong with the network any more, and it does not even try
    let (connections, began) = (proxy.connections(), Instant::now());
    while began.elapsed() < Duration::from_secs(20) {
        let answer = asked(Duration::from_secs(5));
        assert!(answer.is_err(), "it has found a broker after {:?}", began.elapsed());
    }
    assert_eq!(proxy.connections(), connections);
    assert!(client.context().has_forgotten.load(Ordering::SeqCst));

    // and: what a consumer does about it
    assert!(remind(client.client(), &proxy.address()));
    asked(SOON)?;
    Ok(())
}

#[tokio::test]
async fn a_publisher_whose_client_forgot_every_broker_makes_a_new_one() -> anyhow::Result<()> {
    // given
    let mut outbox = Outbox::shared("forgotten").await?;
    if outbox
        .stack
        .skips("a_publisher_whose_client_forgot", &[Ability::BrokerRoutes])
    {
        return Ok(());
    }
    let topic = outbox.topic("forgotten", PARTITIONS, &[]).await?;
    let route = outbox.stack.kafka().expect(OWN_KAFKA).free_route(2 * SOON).await?;
    let proxy = Proxy::for_kafka(&route)?;
    outbox.brokers = proxy.address();
    let service = outbox
        .publisher("publisher")
        .set("KAFKA__PROPERTIES__STATISTICS_INTERVAL_MS", 500)
        .set("KAFKA__PROPERTIES__TOPIC_METADATA_REFRESH_INTERVAL_MS", REFRESH_MS);
    let publisher = service.start().await?;
    let load = Load::start(&outbox, &topic, 2, 30, Duration::from_millis(10));
    load.more(300).await?;
    outbox.until_number(PUBLISHED, SOON, |count| count > 200).await?;

    // when
    proxy
        .hide_brokers_until("the publisher's client to forget every broker", 2 * SOON, || {
            publisher.has_logged(FORGOTTEN)
        })
        .await?;

    // then: it goes on by itself
    let (published, began) = (outbox.number(PUBLISHED).await?, Instant::now());
    outbox
        .until_number(PUBLISHED, SOON, |now| now > published + 300)
        .await?;
    eprintln!("published again within {:?}", began.elapsed());
    publisher.ready(SOON).await?;
    let written = load.stop().await?;
    outbox.until_statuses(&[("PUBLISHED", written as i64)]).await?;
    assert_eq!(outbox.attempts().await?, 0);
    outbox.end(vec![publisher], outbox.audit().with_faults()).await?;
    Ok(())
}

#[tokio::test]
async fn an_idle_publisher_says_so_where_packets_vanish() -> anyhow::Result<()> {
    // given: one that has never sent anything, and one that has nothing more to send
    let mut outbox = Outbox::shared("vanish").await?;
    if outbox
        .stack
        .skips("an_idle_publisher_says_so", &[Ability::BrokerRoutes])
    {
        return Ok(());
    }
    let topic = outbox.topic("vanish", 3, &[]).await?;
    let route = outbox.stack.kafka().expect(OWN_KAFKA).free_route(2 * SOON).await?;
    let proxy = Proxy::for_kafka(&route)?;
    outbox.brokers = proxy.address();
    let fresh_outbox = Outbox {
        brokers: proxy.address(),
        ..Outbox::shared("vanish_fresh").await?
    };
    let fresh = fresh_outbox.publisher("fresh").start().await?;
    let idle = outbox.publisher("idle").start().await?;
    outbox.write_rounds(&topic, &["a", "b"], 5).await?;
    outbox.until_statuses(&[("PUBLISHED", 10)]).await?;
    idle.ready(SOON).await?;
    fresh.ready(SOON).await?;

    // when
    proxy.both(Flow::BlackHole);
    let began = Instant::now();

    // then
    for publisher in [&idle, &fresh] {
        let said = until_readiness(publisher, SOON, "that Kafka is silent", |status, body| {
            status == 503 && body.contains("no broker of Kafka has answered in the last")
        })
        .await?;
        eprintln!("{} told after {:?}: {said}", publisher.name(), began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        assert_eq!(publisher.metric("outbox_in_flight_events").await?, Some(0.0));
    }

    // and: it is over when the network is back
    proxy.both(Flow::Pass);
    outbox.write_rounds(&topic, &["a", "b"], 5).await?;
    outbox.until_statuses(&[("PUBLISHED", 20)]).await?;
    idle.ready(SOON).await?;
    fresh.ready(SOON).await?;
    fresh_outbox.end(vec![fresh], fresh_outbox.audit()).await?;
    outbox.end(vec![idle], outbox.audit().with_faults()).await?;
    Ok(())
}

#[tokio::test]
async fn an_idle_publisher_stays_ready_though_its_connections_are_closed() -> anyhow::Result<()> {
    // given: a broker that closes a connection after a second without a request
    let options = KafkaOptions::default().property("connections.max.idle.ms", 1_000);
    let stack = Stack::start("idle-connections", &options, &[]).await?;
    if stack.skips("an_idle_publisher_stays_ready", &[Ability::BrokerRoutes]) {
        return Ok(());
    }
    let mut outbox = Outbox::on(&stack, "idle").await?;
    let topic = outbox.topic("idle", 3, &[]).await?;
    let route = stack.kafka().expect("asked for").route()?;
    let proxy = Proxy::for_kafka(&route)?;
    outbox.brokers = proxy.address();
    let publisher = outbox.publisher("publisher").start().await?;
    outbox.write_rounds(&topic, &["a"], 3).await?;
    outbox.until_statuses(&[("PUBLISHED", 3)]).await?;
    publisher.ready(SOON).await?;

    // when: long enough for several statistics
    let (connections, began) = (proxy.connections(), Instant::now());
    while began.elapsed() < Duration::from_secs(30) {
        let answer = publisher.get("/readyz").await?;

        // then
        assert_eq!(answer.status, 200, "after {:?}: {}", began.elapsed(), answer.body);
        tokio::time::sleep(Duration::from_millis(20)).await; // the next look
    }
    let made = proxy.connections() - connections;
    eprintln!("{made} connections were made again");
    assert!(made >= 4, "{made}");
    outbox.end(vec![publisher], outbox.audit()).await?;
    Ok(())
}
