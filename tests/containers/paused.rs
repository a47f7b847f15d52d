//! `docker pause`: an instance that stands still with all it holds, and then goes on as if no time had passed.

use crate::deployment::{BUCKETS, BUCKETS_HELD, Deployment, PARTITIONS, PARTITIONS_HELD};

#[tokio::test]
async fn a_publisher_paused_past_its_lease_lets_go_of_what_another_has_taken_over() -> anyhow::Result<()> {
    // given
    let Some(deployment) = Deployment::start("paused-publisher").await? else {
        return Ok(());
    };
    let [paused, other] = &deployment.publishers;
    other.until_metric(BUCKETS_HELD, |held| held == BUCKETS / 2).await?;

    // when: it still believes in its leases
    paused.container().pause().await?;
    other.until_metric(BUCKETS_HELD, |held| held == BUCKETS).await?;
    deployment.moves().await?;
    paused.container().unpause().await?;

    // then
    paused.until_metric(BUCKETS_HELD, |held| held == BUCKETS / 2).await?;
    deployment.recovers().await?;
    deployment.end(true).await?;
    Ok(())
}

#[tokio::test]
async fn a_triage_instance_paused_past_its_session_decides_nothing_again() -> anyhow::Result<()> {
    // given
    let Some(deployment) = Deployment::start("paused-triage").await? else {
        return Ok(());
    };
    let [paused, other] = &deployment.triage;
    other
        .until_metric(PARTITIONS_HELD, |held| held == PARTITIONS / 2)
        .await?;

    // when: it still believes in its partitions
    paused.container().pause().await?;
    other.until_metric(PARTITIONS_HELD, |held| held == PARTITIONS).await?;
    deployment.moves().await?;
    paused.container().unpause().await?;

    // then
    paused
        .until_metric(PARTITIONS_HELD, |held| held == PARTITIONS / 2)
        .await?;
    deployment.recovers().await?;
    deployment.end(true).await?;
    Ok(())
}
