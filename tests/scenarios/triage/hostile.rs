//! Records that nobody should write: each is claimed, and decided or set aside byte for byte, and none of them stops
//! the next.

use std::time::Duration;

use harness::hostile::Hostile;
use harness::stack::unique;
use harness::wait::{self, Seen};
use harness::{Ability, Stack, Triage, topics};
use shared::clock;

use super::scene::{DECISIONS, SET_ASIDE, SOON, Scene, metric};
use crate::reconcile::reconcile;

/// How many, unless `HOSTILE_RECORDS` says it; `make hostile` asks for a million.
const RECORDS: usize = 20_000;
/// Records that are written at a time.
const CHUNK: usize = 10_000;
/// The largest values, and what the input topic takes.
const LARGE: usize = 10_000_000;
const LIMIT: usize = LARGE + 100_000;
/// What a service may need beside what is in hand.
const RESIDENT_MOST: u64 = 400 << 20;
/// How long a service may stand still.
const STILL: Duration = Duration::from_secs(120);

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Topics for large values and for times that brokers refuse by default.
async fn scene() -> anyhow::Result<Scene> {
    let stack = Stack::shared().await?;
    let most = (LIMIT + 65_536).to_string();
    let all_times = [
        ("retention.ms", "-1"),
        ("max.message.bytes", most.as_str()),
        ("message.timestamp.after.max.ms", "9223372036854775807"),
    ];
    let (input, output, dead_letter) = tokio::try_join!(
        stack.topic("hostile", 3, &all_times),
        stack.topic("hostile-out", 3, &all_times),
        stack.topic("hostile-dlt", 1, &all_times),
    )?;
    let group = unique("hostile");
    Ok(Scene {
        stack,
        brokers: stack.brokers(),
        database: stack.database("hostile").await?,
        triage: Triage {
            consumer: group.clone(),
            group,
            inputs: vec![input],
            output,
            dead_letter,
        },
    })
}

#[tokio::test]
async fn hostile_records_are_decided_or_set_aside_and_stop_nothing() -> anyhow::Result<()> {
    if Stack::shared()
        .await?
        .skips("hostile", &[Ability::LongTopics, Ability::Admin])
    {
        return Ok(());
    }
    // given
    let records = from_environment("HOSTILE_RECORDS").unwrap_or(RECORDS);
    let seed = from_environment("HOSTILE_SEED").unwrap_or_else(|| clock::unix_millis().unsigned_abs());
    eprintln!("{records} hostile records, HOSTILE_SEED={seed}");
    let scene = scene().await?;
    let service = scene.service("triage").set("TOPICS__INPUT_RECORD_BYTES_MAX", LIMIT);
    let service = super::scene::start(&service).await?;

    // when
    let mut stream = Hostile::new(seed, LARGE);
    for begun in (0..records).step_by(CHUNK) {
        let some = stream.by_ref().take(CHUNK.min(records - begun)).collect();
        topics::produce(&scene.brokers, scene.input(), some).await?;
    }
    let mut before = -1;
    loop {
        // However many there are, some must be passed in every while.
        before = wait::until("the group to go on", STILL, || async {
            let passed: i64 = scene.committed().await?.iter().filter_map(|at| at.offset).sum();
            let is_over = scene.committed().await?.iter().all(topics::Committed::is_at_end);
            Ok(Seen::when(passed, |passed| is_over || *passed > before))
        })
        .await?;
        if before >= i64::try_from(records)? {
            break;
        }
    }

    // then
    let resident = service.resident_peak_bytes()?;
    let duplicates = metric(&service, "triage_duplicates_total").await?;
    let (decided, set_aside) = (scene.number(DECISIONS).await?, scene.number(SET_ASIDE).await?);
    let mebibytes = resident >> 20;
    eprintln!("{decided} decided, {set_aside} set aside, {duplicates} duplicates; at most {mebibytes} MiB resident");
    assert!(resident <= RESIDENT_MOST, "{mebibytes} MiB were resident");
    assert!(decided > 0 && set_aside > 0);
    let all = decided.unsigned_abs() + set_aside.unsigned_abs() + duplicates;
    assert_eq!(all, records as u64, "each record is one of them");
    assert_eq!(service.terminate(SOON).await?, 0);
    scene.publish().await?;
    let said = reconcile(&scene, &[]).await?;
    said.expect_clean();
    assert_eq!(said.report["records_in"], records as u64);
    assert_eq!(said.report["dead_lettered"], set_aside);
    scene.stack.drop_database(&scene.database).await
}
