//! Network disconnect and connect: nothing is refused and nothing is closed, packets just go nowhere, and the
//! name of the part is not known meanwhile. It may come back at another address.

use crate::deployment::{BUCKETS, BUCKETS_HELD, Deployment, PARTITIONS, PARTITIONS_HELD};

#[tokio::test]
async fn a_publisher_that_was_cut_off_lets_go_of_what_another_has_taken_over() -> anyhow::Result<()> {
    // given
    let Some(deployment) = Deployment::start("cut-publisher").await? else {
        return Ok(());
    };
    let [cut, other] = &deployment.publishers;

    // when
    cut.container().disconnect(deployment.network()).await?;
    other.until_metric(BUCKETS_HELD, |held| held == BUCKETS).await?;
    deployment.moves().await?;
    cut.container().connect(deployment.network()).await?;

    // then
    cut.until_metric(BUCKETS_HELD, |held| held == BUCKETS / 2).await?;
    deployment.recovers().await?;
    deployment.end(true).await?;
    Ok(())
}

#[tokio::test]
async fn a_triage_instance_that_was_cut_off_decides_nothing_again() -> anyhow::Result<()> {
    // given
    let Some(deployment) = Deployment::start("cut-triage").await? else {
        return Ok(());
    };
    let [cut, other] = &deployment.triage;

    // when
    cut.container().disconnect(deployment.network()).await?;
    other.until_metric(PARTITIONS_HELD, |held| held == PARTITIONS).await?;
    deployment.moves().await?;
    cut.container().connect(deployment.network()).await?;

    // then
    cut.until_metric(PARTITIONS_HELD, |held| held == PARTITIONS / 2).await?;
    deployment.recovers().await?;
    deployment.end(true).await?;
    Ok(())
}

#[tokio::test]
async fn a_kafka_that_was_cut_off_is_found_again() -> anyhow::Result<()> {
    // given
    let Some(deployment) = Deployment::start("cut-kafka").await? else {
        return Ok(());
    };
    let container = deployment.kafka().container().expect("a container");

    // when
    container.disconnect(deployment.network()).await?;
    for replica in deployment.replicas() {
        replica.until_not_ready("kafka").await?;
    }
    container.connect(deployment.network()).await?;

    // then
    deployment.kafka().until_it_answers().await?;
    deployment.recovers().await?;
    deployment.end(true).await?;
    Ok(())
}

#[tokio::test]
async fn a_postgres_that_was_cut_off_is_found_again() -> anyhow::Result<()> {
    // given
    let Some(deployment) = Deployment::start("cut-postgres").await? else {
        return Ok(());
    };
    let container = deployment.postgres.container().expect("a container");

    // when
    container.disconnect(deployment.network()).await?;
    for replica in deployment.replicas() {
        replica.until_not_ready("postgres").await?;
    }
    container.connect(deployment.network()).await?;

    // then
    deployment.postgres.until_it_answers().await?;
    deployment.recovers().await?;
    deployment.end(true).await?;
    Ok(())
}
