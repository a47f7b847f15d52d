//! Servers that are away for a while: no attempt is spent, nothing is set aside, all goes on by itself.

use std::sync::Arc;

use harness::postgres::{Postgres, Stop};
use harness::proxy::{Flow, Proxy};
use harness::{Ability, Database, Stack};
use shared::kafka::FORGOTTEN;

use super::rebalancing::Load;
use super::scene::{self, DECISIONS, SESSION, SET_ASIDE, SOON, Scene, events, metric, start, until_not_ready};

#[tokio::test]
async fn postgres_restarts_under_load_and_nothing_is_lost_or_set_aside() -> anyhow::Result<()> {
    // given: a Postgres that only this scenario uses, with a schema that the service brings up itself
    let stack = Stack::shared().await?;
    if stack.skips("postgres_restarts", &[Ability::DatabaseProcess]) {
        return Ok(());
    }
    let server = Postgres::start_new("triage-restarts", &[]).await?;
    let database = Database {
        name: "postgres".to_owned(),
        url: server.url("postgres"),
    };
    let scene = Arc::new(Scene::with_database(stack, database, "restarts", 3).await?);
    let service = scene.start("triage").await?;
    let load = Load::start(&scene);
    load.more(200).await?;

    // when
    for how in [Stop::Fast, Stop::Crash, Stop::Kill] {
        server.stop(how).await?;
        until_not_ready(&service, "postgres").await?;
        load.more(100).await?;
        server.start().await?;
        service.ready(SOON).await?;
        load.more(200).await?;
    }
    let sent = load.stop().await? as i64;
    scene.until_passed().await?;

    // then
    assert_eq!(
        (scene.number(DECISIONS).await?, scene.number(SET_ASIDE).await?),
        (sent, 0)
    );
    scene::drain(vec![service]).await?;
    scene.publish().await?;
    scene.judge(&scene.triage).await?;
    Ok(())
}

#[tokio::test]
async fn brokers_out_of_reach_are_waited_for() -> anyhow::Result<()> {
    // given: a service that reaches Kafka through a network of ours
    let scene = Scene::new("out_of_reach", 3).await?;
    if scene.stack.skips("out_of_reach", &[Ability::BrokerRoutes]) {
        return Ok(());
    }
    let kafka = scene.stack.kafka().expect("a stack with routes has its own Kafka");
    let route = kafka.free_route(2 * SOON).await?;
    let network = Proxy::for_kafka(&route)?;
    let service = start(&scene.service("triage").set("KAFKA__BROKERS", network.address())).await?;
    scene.send(events(60, 6)).await?;
    scene.until_passed().await?;

    // when: nothing can be reached for longer than the session of a member
    network.refuse(true);
    scene.send(events(60, 6)).await?;
    until_not_ready(&service, "kafka").await?;
    tokio::time::sleep(SESSION).await; // an outage has a length, and no condition
    network.refuse(false);

    // then
    service.ready(SOON).await?;
    scene.until(DECISIONS, |count| count == 120).await?;
    scene.until_passed().await?;

    // and: the same when packets are lost and connections stay open
    network.both(Flow::BlackHole);
    scene.send(events(60, 6)).await?;
    tokio::time::sleep(SESSION).await; // as above
    network.both(Flow::Pass);
    scene.until(DECISIONS, |count| count == 180).await?;
    scene.until_passed().await?;
    service.ready(SOON).await?;

    assert_eq!(scene.number(SET_ASIDE).await?, 0);
    assert_eq!(metric(&service, "triage_payload_mismatches_total").await?, 0);
    scene.end(vec![service]).await?;
    Ok(())
}

#[tokio::test]
async fn a_service_whose_client_forgot_every_broker_is_told_them_again_and_decides_the_rest() -> anyhow::Result<()> {
    // given: many partitions, since whether the client forgets is a race that a longer answer wins
    let scene = Arc::new(Scene::new("forgotten", 48).await?);
    if scene
        .stack
        .skips("a_service_whose_client_forgot", &[Ability::BrokerRoutes])
    {
        return Ok(());
    }
    let kafka = scene.stack.kafka().expect("a stack with routes has its own Kafka");
    let route = kafka.free_route(2 * SOON).await?;
    let network = Proxy::for_kafka(&route)?;
    let service = scene
        .service("triage")
        .set("KAFKA__BROKERS", network.address())
        .set("KAFKA__PROPERTIES__TOPIC_METADATA_REFRESH_INTERVAL_MS", 200);
    let service = start(&service).await?;
    let load = Load::start(&scene);
    load.more(200).await?;

    // when
    network
        .hide_brokers_until("the client to forget every broker", 2 * SOON, || {
            service.has_logged(FORGOTTEN)
        })
        .await?;

    // then: it was told its brokers again, and goes on as if nothing had been
    load.more(100).await?;
    service.ready(SOON).await?;
    let sent = load.stop().await? as i64;
    scene.until_passed().await?;
    assert_eq!(
        (scene.number(DECISIONS).await?, scene.number(SET_ASIDE).await?),
        (sent, 0)
    );
    scene::drain(vec![service]).await?;
    scene.publish().await?;
    scene.judge(&scene.triage).await?;
    Ok(())
}
