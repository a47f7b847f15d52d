//! Input records, claims and decisions, held against each other.

use std::collections::BTreeMap;

use super::code::Code;
use super::finding::{Example, Findings};
use super::judge::Knowledge;
use super::looks::Looks;
use super::topic::Topic;
use super::window::Window;

/// What the intake has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intake {
    /// Input records.
    pub records: u64,
    /// Of these, records that are the one which was claimed.
    pub claimed: u64,
    /// Of these, repetitions of a claimed one, whatever their body.
    pub duplicates: u64,
    /// Claims of the consumer.
    pub claims: u64,
    /// Of these, claims that were set aside.
    pub set_aside: u64,
    /// Decisions, by outcome.
    pub decisions: BTreeMap<String, u64>,
}

/// Judges the intake.
pub async fn judge(looks: &mut Looks, window: &Window, findings: &mut Findings) -> anyhow::Result<Intake> {
    let Some(input) = looks.input.clone() else {
        return Ok(Intake::default());
    };
    judge_offsets(looks, &input, window, findings);
    let intake = judge_records(looks, &input, window, findings).await?;
    judge_claims(looks, &input, window, findings).await?;
    // Decisions do not know the place of their record.
    if window.partition.is_none() && !window.is_of_offsets() {
        judge_decisions(looks, window, findings).await?;
    }
    Ok(intake)
}

fn judge_offsets(looks: &Looks, input: &Topic, window: &Window, findings: &mut Findings) {
    for (&partition, &committed) in &looks.known.committed {
        let Some(reach) = looks.input_ends.get(&partition) else {
            continue;
        };
        let is_wrong = Knowledge::of_committed(committed, reach.high);
        if let Some(code) = is_wrong.filter(|_| window.has_partition(partition)) {
            findings.add(code, || {
                let note = format!("the partition ends at {}", reach.high);
                Example::record(&input.name, partition, committed).note(note)
            });
        }
    }
}

async fn judge_records(
    looks: &mut Looks,
    input: &Topic,
    window: &Window,
    findings: &mut Findings,
) -> anyhow::Result<Intake> {
    let (known, consumer) = (&looks.known, looks.consumer);
    looks
        .store
        .unclaimed(consumer, |row| {
            if window.has_time(row.timestamp_ms) {
                let code = known.of_unclaimed(row.partition, row.offset, row.timestamp_ms);
                findings.add(code, || {
                    Example::record(&input.name, row.partition, row.offset).event(row.event_id)
                });
            }
        })
        .await?;
    let mut intake = Intake::default();
    let mut other = 0;
    looks
        .store
        .inputs(consumer, |row| {
            intake.records = row.records.unsigned_abs();
            intake.claimed = row.own.unsigned_abs();
            intake.duplicates = (row.same + row.other).unsigned_abs();
            other = row.other.unsigned_abs();
        })
        .await?;
    if other > 0 {
        looks
            .store
            .other_bodies(consumer, findings.examples_max(), |row| {
                let claimed = format!(
                    "claimed is {}[{}]@{}",
                    row.topic, row.claimed_partition, row.claimed_offset
                );
                let example = Example::record(&input.name, row.partition, row.offset);
                findings.add(Code::AnotherBody, || example.event(row.event_id).note(claimed));
            })
            .await?;
        let named = findings.of(Code::AnotherBody);
        findings.count(Code::AnotherBody, other.saturating_sub(named));
    }
    looks
        .store
        .totals(consumer, window, |row| {
            let count = row.count.unsigned_abs();
            if row.is_decision {
                intake.decisions.insert(row.outcome, count);
            } else {
                intake.claims += count;
                intake.set_aside += if row.outcome == "SET_ASIDE" { count } else { 0 };
            }
        })
        .await?;
    Ok(intake)
}

async fn judge_claims(
    looks: &mut Looks,
    input: &Topic,
    window: &Window,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let (known, consumer) = (&looks.known, looks.consumer);
    // Claims of other topics are this consumer's, too; a place that is asked for is the input's.
    let is_wanted = |topic: &str, partition, offset| {
        let is_anywhere = window.partition.is_none() && !window.is_of_offsets();
        is_anywhere || (topic == input.name && window.has_partition(partition) && window.has_offset(offset))
    };
    looks
        .store
        .claims_without_decision(consumer, window, |row| {
            if is_wanted(&row.topic, row.partition, row.offset) {
                findings.add(Knowledge::of_claim_without_decision(row.is_day_dropped), || {
                    Example::record(&row.topic, row.partition, row.offset).event(row.event_id)
                });
            }
        })
        .await?;
    looks
        .store
        .claims_without_row(consumer, window, |row| {
            if is_wanted(&row.topic, row.partition, row.offset) {
                findings.add(known.of_claim_without_row(row.claimed_ms, row.is_set_aside), || {
                    Example::record(&row.topic, row.partition, row.offset).event(row.event_id)
                });
            }
        })
        .await?;
    looks
        .store
        .other_letters(consumer, window, |row| {
            if is_wanted(&row.topic, row.partition, row.offset) {
                findings.add(Code::DeadLetterDiffers, || {
                    let mut example = Example::record(&row.topic, row.partition, row.offset).event(row.event_id);
                    example.row = Some(row.id);
                    example
                });
            }
        })
        .await
}

async fn judge_decisions(looks: &mut Looks, window: &Window, findings: &mut Findings) -> anyhow::Result<()> {
    let (known, consumer) = (&looks.known, looks.consumer);
    looks
        .store
        .decided_twice(consumer, window, |row| {
            let code = known.of_repeated(row.first_ms, row.last_ms, Code::DecidedTwice);
            findings.add(code, || Example {
                event_id: Some(row.event_id),
                note: Some(format!("{} decisions: {}", row.times, row.outcomes)),
                ..Example::default()
            });
        })
        .await?;
    looks
        .store
        .decisions_without_claim(consumer, window, |row| {
            if let Some(code) = known.of_decision_without_claim(row.decided_ms) {
                findings.add(code, || Example {
                    event_id: Some(row.event_id),
                    ..Example::default()
                });
            }
        })
        .await
}
