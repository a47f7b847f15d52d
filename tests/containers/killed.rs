//! `docker kill` and start of each part.

use harness::postgres::Stop;

use crate::deployment::{BUCKETS, BUCKETS_HELD, Deployment, PARTITIONS, PARTITIONS_HELD};

#[tokio::test]
async fn a_killed_publisher_is_replaced_by_the_other_and_comes_back() -> anyhow::Result<()> {
    // given
    let Some(deployment) = Deployment::start("killed-publisher").await? else {
        return Ok(());
    };
    let [killed, other] = &deployment.publishers;

    // when
    killed.container().kill().await?;
    other.until_metric(BUCKETS_HELD, |held| held == BUCKETS).await?;
    killed.container().start().await?;

    // then
    killed.until_metric(BUCKETS_HELD, |held| held == BUCKETS / 2).await?;
    deployment.recovers().await?;
    deployment.end(true).await?;
    Ok(())
}

#[tokio::test]
async fn a_killed_triage_instance_is_replaced_by_the_other_and_comes_back() -> anyhow::Result<()> {
    // given
    let Some(deployment) = Deployment::start("killed-triage").await? else {
        return Ok(());
    };
    let [killed, other] = &deployment.triage;

    // when
    killed.container().kill().await?;
    other.until_metric(PARTITIONS_HELD, |held| held == PARTITIONS).await?;
    killed.container().start().await?;

    // then
    killed
        .until_metric(PARTITIONS_HELD, |held| held == PARTITIONS / 2)
        .await?;
    deployment.recovers().await?;
    deployment.end(true).await?;
    Ok(())
}

#[tokio::test]
async fn a_killed_kafka_is_waited_for() -> anyhow::Result<()> {
    // given
    let Some(deployment) = Deployment::start("killed-kafka").await? else {
        return Ok(());
    };

    // when
    deployment.kafka().kill().await?;
    for replica in deployment.replicas() {
        replica.until_not_ready("kafka").await?;
    }
    deployment.kafka().start().await?;

    // then
    deployment.recovers().await?;
    deployment.end(true).await?;
    Ok(())
}

#[tokio::test]
async fn a_killed_postgres_is_waited_for() -> anyhow::Result<()> {
    // given
    let Some(deployment) = Deployment::start("killed-postgres").await? else {
        return Ok(());
    };

    // when
    deployment.postgres.stop(Stop::Kill).await?;
    for replica in deployment.replicas() {
        replica.until_not_ready("postgres").await?;
    }
    deployment.postgres.start().await?;

    // then
    deployment.recovers().await?;
    deployment.end(true).await?;
    Ok(())
}
