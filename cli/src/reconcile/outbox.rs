//! Outbox rows and the records on their topics, held against each other.

use std::time::Duration;

use shared::hash::partition_of;

use super::code::Code;
use super::finding::{Example, Findings};
use super::judge::Place;
use super::looks::Looks;
use super::postgres::State;
use super::topic::Topic;
use super::window::Window;

/// How long a lease may go on without a sign of life of its owner: as long as publishers count it among them.
const SILENT_MS_MAX: i64 = 60_000;

/// What the publishers have done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outbox {
    /// Rows, of every topic.
    pub rows: u64,
    /// Records on the output topics.
    pub records: u64,
    /// Events on the output topics.
    pub published: u64,
}

/// Judges rows and records.
pub async fn judge(
    looks: &mut Looks,
    window: &Window,
    pending_age: Duration,
    findings: &mut Findings,
) -> anyhow::Result<Outbox> {
    let outputs = std::mem::take(&mut looks.outputs);
    judge_rows(looks, &outputs, window, findings).await?;
    judge_records(looks, &outputs, window, findings).await?;
    judge_order(looks, &outputs, window, findings).await?;
    let repeats = judge_repeats(looks, &outputs, findings).await?;
    if window.partition.is_none() && !window.is_of_offsets() {
        judge_states(looks, &outputs, window, pending_age, findings).await?;
    }
    if window.topics.is_empty() {
        judge_leases(looks, findings).await?;
    }
    let records = outputs
        .iter()
        .flat_map(|topic| topic.spans.values())
        .map(|span| span.len())
        .sum::<u64>();
    let outbox = Outbox {
        rows: looks.rows,
        records,
        published: records.saturating_sub(repeats + findings.of(Code::ForeignRecord)),
    };
    looks.outputs = outputs;
    Ok(outbox)
}

fn name(outputs: &[Topic], number: i32) -> &str {
    let topic = usize::try_from(number).ok().and_then(|number| outputs.get(number));
    topic.map_or("?", |topic| topic.name.as_str())
}

fn place(topic: i32, partition: i32, offset: i64) -> Place {
    Place {
        topic: usize::try_from(topic).unwrap_or(usize::MAX), // known to nobody
        partition,
        offset,
    }
}

async fn judge_rows(
    looks: &mut Looks,
    outputs: &[Topic],
    window: &Window,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let known = &looks.known;
    // Rows do not know the offset of their record.
    if !window.is_of_offsets() {
        looks
            .store
            .published_without_record(|row| {
                let number = usize::try_from(row.topic).unwrap_or(usize::MAX);
                let count = outputs.get(number).map_or(0, |topic| topic.partitions.len());
                let expected = match i32::try_from(count) {
                    Ok(count) if count > 0 => partition_of(row.key.as_deref(), row.event_id, count),
                    _ => -1,
                };
                if window.has_time(Some(row.made_ms)) && window.has_partition(expected) {
                    let code = known.of_published_without_record(number, expected, row.made_ms);
                    findings.add(code, || {
                        Example::row(name(outputs, row.topic), row.id).event(row.event_id)
                    });
                }
            })
            .await?;
    }
    looks
        .store
        .rows_twice(|row| {
            if !window.has_time(Some(row.last_ms)) {
                return;
            }
            let code = if row.is_caused {
                known.of_repeated(row.first_ms, row.last_ms, Code::OutcomeTwice)
            } else {
                Code::EventEnqueuedTwice
            };
            findings.add(code, || Example {
                topic: Some(name(outputs, row.topic).to_owned()),
                event_id: Some(row.event_id),
                note: Some(format!("{} rows", row.times)),
                ..Example::default()
            });
        })
        .await
}

async fn judge_records(
    looks: &mut Looks,
    outputs: &[Topic],
    window: &Window,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let known = &looks.known;
    looks
        .store
        .records_without_row(|row| {
            let place = place(row.topic, row.partition, row.offset);
            let code = known.of_record_without_row(place, row.outbox_id, row.is_foreign);
            if let Some(code) = code.filter(|_| window.has_time(row.timestamp_ms)) {
                findings.add(code, || {
                    let mut example = Example::record(name(outputs, row.topic), row.partition, row.offset);
                    example.event_id = row.event_id;
                    example.row = row.outbox_id;
                    if row.event_id.is_none() {
                        example = example.note("without an event-id");
                    }
                    example
                });
            }
        })
        .await?;
    looks
        .store
        .differing(|row| {
            if !window.has_time(row.timestamp_ms) {
                return;
            }
            let example = || {
                let mut example = Example::record(name(outputs, row.topic), row.partition, row.offset);
                example.row = Some(row.id);
                example.event(row.event_id)
            };
            if row.is_other_key {
                findings.add(Code::KeyDiffers, example);
            }
            if row.is_other_payload {
                findings.add(Code::PayloadDiffers, example);
            }
        })
        .await
}

async fn judge_order(
    looks: &mut Looks,
    outputs: &[Topic],
    window: &Window,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let known = &looks.known;
    looks
        .store
        .inversions(|row| {
            let place = place(row.topic, row.partition, row.offset);
            let code = match row.earlier_offset {
                Some(_) => Some(known.of_inversion(place, row.earlier_ms)),
                None => known.of_overtaken(place, row.earlier_ms),
            };
            if let Some(code) = code.filter(|_| window.has_time(Some(row.made_ms))) {
                findings.add(code, || {
                    let mut example = Example::record(name(outputs, row.topic), row.partition, row.offset);
                    example.row = Some(row.id);
                    let earlier = match row.earlier_offset {
                        Some(offset) => format!("was to follow row {}, which is at {offset}", row.earlier_id),
                        None => format!("was to follow row {}, which is not there yet", row.earlier_id),
                    };
                    example.event(row.event_id).note(earlier)
                });
            }
        })
        .await
}

/// Returns how many records are repetitions.
async fn judge_repeats(looks: &mut Looks, outputs: &[Topic], findings: &mut Findings) -> anyhow::Result<u64> {
    let (mut repeats, mut moved) = (0, 0);
    looks
        .store
        .occurrences(|row| {
            repeats += row.repeats.unsigned_abs();
            moved += row.moved.unsigned_abs();
        })
        .await?;
    let limit = findings.examples_max();
    looks
        .store
        .repeated(limit, |row| {
            let example = || {
                let example = Example::record(name(outputs, row.topic), row.partition, row.offset);
                example.event(row.event_id).note(format!("{} times", row.occurrences))
            };
            if row.is_moved {
                findings.add(Code::KeyOnTwoPartitions, example);
            }
            findings.add(Code::PublishedAgain, example);
        })
        .await?;
    for (code, count) in [(Code::PublishedAgain, repeats), (Code::KeyOnTwoPartitions, moved)] {
        let named = findings.of(code);
        findings.count(code, count.saturating_sub(named));
    }
    Ok(repeats)
}

async fn judge_states(
    looks: &mut Looks,
    outputs: &[Topic],
    window: &Window,
    pending_age: Duration,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let now = looks.known.now;
    let old = now - i64::try_from(pending_age.as_millis()).unwrap_or(i64::MAX / 2);
    looks
        .store
        .states(old, window, |row| {
            let example = || {
                let age = Duration::from_millis((now - row.oldest_ms).unsigned_abs());
                let example = Example::row(name(outputs, row.topic), row.id).event(row.event_id);
                example.note(format!("the oldest of {}, {} s old", row.rows, age.as_secs()))
            };
            for code in codes_of(&row) {
                findings.add_many(code, row.rows.unsigned_abs(), example);
            }
        })
        .await
}

/// What a row that is not simply PUBLISHED is.
fn codes_of(row: &State) -> Vec<Code> {
    let mut codes = Vec::new();
    if row.is_redriven {
        codes.push(Code::RowRedriven);
    }
    if row.is_failed {
        codes.push(if row.is_on_topic {
            Code::FailedOnTopic
        } else {
            Code::RowFailed
        });
    }
    if row.is_pending {
        codes.push(match (row.is_on_topic, row.is_side, row.is_old) {
            (true, false, false) => Code::RowUnsettled,
            (_, true, _) => Code::RowBehindFailed,
            (_, false, true) => Code::PendingTooLong,
            (false, false, false) => Code::RowPending,
        });
    }
    codes
}

async fn judge_leases(looks: &mut Looks, findings: &mut Findings) -> anyhow::Result<()> {
    let now = looks.known.now;
    looks
        .store
        .leases(now, |row| {
            let is_dead = row.silent_ms.is_none_or(|silent| silent > SILENT_MS_MAX);
            let code = if is_dead {
                Code::LeaseOfNobody
            } else {
                Code::LeaseRunsOut
            };
            findings.add(code, || Example {
                note: Some(format!(
                    "bucket {} of {}, for another {} s",
                    row.bucket,
                    row.owner,
                    row.runs_ms / 1_000
                )),
                ..Example::default()
            });
        })
        .await
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn pending() -> State {
        State {
            topic: 0,
            is_failed: false,
            is_pending: true,
            is_side: false,
            is_redriven: false,
            is_on_topic: false,
            is_old: false,
            rows: 1,
            oldest_ms: 0,
            id: 1,
            event_id: Uuid::nil(),
        }
    }

    #[test]
    fn only_the_main_lane_may_be_too_old() {
        let old = State {
            is_old: true,
            ..pending()
        };
        assert_eq!(codes_of(&pending()), [Code::RowPending]);
        assert_eq!(codes_of(&old), [Code::PendingTooLong]);
        let side = State { is_side: true, ..old };
        assert_eq!(codes_of(&side), [Code::RowBehindFailed]);
    }

    #[test]
    fn what_is_acknowledged_and_not_written_down_is_on_its_way() {
        let on_topic = State {
            is_on_topic: true,
            ..pending()
        };
        assert_eq!(codes_of(&on_topic), [Code::RowUnsettled]);
        let stale = State {
            is_old: true,
            ..on_topic
        };
        assert_eq!(codes_of(&stale), [Code::PendingTooLong]);
    }

    #[test]
    fn a_redriven_row_is_told_beside_its_state() {
        let failed = State {
            is_failed: true,
            is_pending: false,
            is_redriven: true,
            ..pending()
        };
        assert_eq!(codes_of(&failed), [Code::RowRedriven, Code::RowFailed]);
    }
}
