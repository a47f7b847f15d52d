//! Services that work, die and come back meanwhile.

use std::time::Duration;

use harness::feed::{Feeder, Pace, Writer};
use harness::input::Inputs;
use harness::{Ability, Audit, Running, Service, Stack};
use shared::clock;

use super::reconcile;
use crate::triage::scene::{SOON, Scene, drain, start};

/// Records a second, and how many: so that the stream outlasts the looks on a busy machine, too.
const PACE: Pace = Pace {
    rate: 400,
    most: 60_000,
};
/// Looks while services work, and while they die.
const LOOKS: usize = 4;

#[tokio::test]
async fn a_system_at_work_is_never_called_wrong() -> anyhow::Result<()> {
    if Stack::shared().await?.skips("recon-live", &[Ability::PromptFetch]) {
        return Ok(());
    }
    // given
    let scene = Scene::new("recon-live", 6).await?;
    let mut triage = vec![scene.start("triage-1").await?, scene.start("triage-2").await?];
    let mut publishers = vec![publisher(&scene, 1).await?, publisher(&scene, 2).await?];
    let now = clock::unix_millis();
    let inputs = Inputs::new(now.unsigned_abs(), now);
    let feeder = Feeder::start(Writer::new(&scene.brokers, scene.input())?, inputs, PACE, None);
    scene
        .until(
            "select count(*) from outbox_events where status = 'PUBLISHED'",
            |count| count > 500,
        )
        .await?;

    // when: looked at again and again, and in between both kinds of service are killed and come back
    let mut unfinished = 0;
    for look in 0..LOOKS {
        unfinished += look_at(&scene).await?;
        triage.remove(0).kill()?;
        publishers.remove(0).kill()?;
        unfinished += look_at(&scene).await?;
        triage.push(scene.start(&format!("triage-{}", look + 3)).await?);
        publishers.push(publisher(&scene, look + 3).await?);
    }
    assert!(!feeder.has_ended(), "the stream was over before the last look");
    let written = feeder.stop().await?;
    scene.until_passed().await?;
    scene
        .until("select count(*) from outbox_events where status = 'PENDING'", |count| {
            count == 0
        })
        .await?;
    drain(triage).await?;
    drain(publishers).await?;
    let said = reconcile(&scene, &[]).await?;

    // then
    assert!(
        unfinished > 0,
        "no look met anything that was not finished: they did not show what they are for"
    );
    said.expect_clean();
    assert_eq!(said.of_class("not-finished"), [].into());
    assert_eq!(said.report["records_in"], written.values().sum::<u64>());
    let verdict = Audit::new(&scene.brokers, &scene.database)
        .triage(scene.triage.clone())
        .with_faults()
        .run()
        .await?;
    verdict.assert_clean();
    assert_eq!(said.report["publish_duplicates"], verdict.publish_duplicates);
    assert_eq!(said.report["duplicates_suppressed"], verdict.duplicates_suppressed);
    scene.stack.drop_database(&scene.database).await
}

/// One look, which must not call anything wrong. Returns how much was not finished.
async fn look_at(scene: &Scene) -> anyhow::Result<u64> {
    let said = reconcile(scene, &[]).await?;
    let unfinished = said.of_class("not-finished");
    eprintln!(
        "{:.1} s, not finished {unfinished:?}",
        said.report["duration_seconds"].as_f64().unwrap_or_default()
    );
    said.expect_clean();
    Ok(unfinished.values().sum())
}

async fn publisher(scene: &Scene, number: usize) -> anyhow::Result<Running> {
    let service = Service::publisher(&format!("publisher-{number}"))
        .set("KAFKA__BROKERS", &scene.brokers)
        .set("DATABASE__URL", &scene.database.url)
        .set("LEASE__DURATION_MS", Duration::from_secs(2).as_millis())
        .set("LEASE__RENEW_MS", 300);
    let running = start(&service).await?;
    running.ready(SOON).await?;
    Ok(running)
}
