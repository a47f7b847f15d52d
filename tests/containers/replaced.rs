//! New containers in place of old ones: on the volumes of the servers, and one service after the other.

use harness::postgres::Stop;

use crate::deployment::Deployment;

#[tokio::test]
async fn two_of_each_service_carry_every_record_once() -> anyhow::Result<()> {
    // given
    let Some(deployment) = Deployment::start("whole").await? else {
        return Ok(());
    };

    // when: nothing is broken
    deployment.moves().await?;

    // then: nothing is there twice either
    let verdict = deployment.end(false).await?;
    assert_eq!(verdict.publish_duplicates, 0);
    Ok(())
}

#[tokio::test]
async fn kafka_and_postgres_go_on_with_their_volumes_in_new_containers() -> anyhow::Result<()> {
    // given
    let Some(deployment) = Deployment::start("volumes").await? else {
        return Ok(());
    };

    // when
    deployment.postgres.stop(Stop::Fast).await?;
    deployment.kafka().stop().await?;
    for publisher in &deployment.publishers {
        publisher.until_not_ready("postgres").await?;
    }
    for triage in &deployment.triage {
        triage.until_not_ready("kafka").await?; // without records it asks Postgres for nothing
    }
    tokio::try_join!(deployment.postgres.renew(), deployment.kafka().renew())?;

    // then
    deployment.recovers().await?;
    deployment.end(true).await?;
    Ok(())
}

#[tokio::test]
async fn services_replaced_one_after_the_other_lose_nothing_and_send_nothing_twice() -> anyhow::Result<()> {
    // given
    let Some(deployment) = Deployment::start("rolling").await? else {
        return Ok(());
    };

    // when: each drains, and a new container takes its place
    for replica in deployment.replicas() {
        replica.drain().await?;
        replica.container().renew().await?;
        replica.ready().await?;
    }

    // then
    deployment.recovers().await?;
    let verdict = deployment.end(false).await?;
    assert_eq!(verdict.publish_duplicates, 0);
    Ok(())
}
