//! Inversions of first occurrences among the pairs whose order is promised.
//!
//! Promised are: rows of one transaction, by id; rows whose writer serialised the key, by id; and
//! outcomes of one input partition, by its offsets. Always within one topic and key: a null key
//! promises nothing. Rows that an operator put back are listed apart, since they come late on purpose.

use std::collections::HashMap;

use super::facts::{Facts, Row};

/// What was promised to a run of rows of one topic and key, and by what they are ordered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Promise<'r> {
    SameTransaction(&'r str),
    Serialised,
    SameInput(&'r str, i32),
}

/// A topic, a key, and what was promised to its rows.
type Run<'r> = (&'r str, &'r [u8], Promise<'r>);

/// One text for each row that stands behind a row which should follow it.
pub(super) fn violations(facts: &Facts) -> Vec<String> {
    let mut runs: HashMap<Run<'_>, Vec<(i64, &Row)>> = HashMap::new();
    for row in facts.rows.iter().filter(|row| !row.is_redriven) {
        let Some(key) = row.key.as_deref() else {
            continue;
        };
        let mut promise = |promise, rank| runs.entry((&row.topic, key, promise)).or_default().push((rank, row));
        promise(Promise::SameTransaction(&row.xid), row.id);
        if row.is_ordered {
            // Triage serialises a partition of its input, and one key's records may lie in several.
            match row.source() {
                Some((topic, partition, offset)) => promise(Promise::SameInput(topic, partition), offset),
                None => promise(Promise::Serialised, row.id),
            }
        }
    }
    let mut found: Vec<String> = runs
        .into_iter()
        .flat_map(|((topic, ..), run)| inversions(facts, topic, run))
        .collect();
    // A pair may be promised twice over.
    found.sort();
    found.dedup();
    found
}

fn inversions(facts: &Facts, topic: &str, mut run: Vec<(i64, &Row)>) -> Vec<String> {
    let Some(on_topic) = facts.on_topic.get(topic) else {
        return Vec::new();
    };
    run.sort_by_key(|(rank, row)| (*rank, row.id));
    let mut found = Vec::new();
    let mut latest: Option<(&Row, i32, i64)> = None;
    for (_, row) in run {
        let Some(first) = on_topic.firsts.get(&row.event_id) else {
            continue;
        };
        match latest {
            Some((before, partition, _)) if partition != first.partition => {
                found.push(format!("{row} and {before} have one key and two partitions"));
            }
            Some((before, partition, offset)) if first.offset < offset => found.push(format!(
                "{row} is at {partition}/{}, ahead of {before} at {partition}/{offset}, which it was to follow",
                first.offset
            )),
            _ => latest = Some((row, first.partition, first.offset)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::facts::OnTopic;
    use super::*;
    use crate::topics::Read;

    fn row(id: i64, xid: &str, is_ordered: bool, source_offset: Option<i64>) -> Row {
        Row {
            id,
            event_id: Uuid::from_u128(id as u128),
            topic: "t".to_owned(),
            key: Some(b"k".to_vec()),
            payload: None,
            status: "PUBLISHED".to_owned(),
            is_ordered,
            is_redriven: false,
            xid: xid.to_owned(),
            source_topic: source_offset.map(|_| "in".to_owned()),
            source_partition: source_offset.map(|_| 0),
            source_offset,
        }
    }

    /// Rows, and the ids in the order in which they are on the topic.
    fn count(rows: Vec<Row>, on_topic: &[i64]) -> usize {
        let firsts = on_topic.iter().enumerate().map(|(offset, id)| {
            let read = Read {
                partition: 0,
                offset: offset as i64,
                key: Some(b"k".to_vec()),
                value: None,
                headers: Vec::new(),
                timestamp: None,
            };
            (Uuid::from_u128(*id as u128), read)
        });
        let topic = OnTopic {
            firsts: firsts.collect(),
            ..OnTopic::default()
        };
        let on_topic = [("t".to_owned(), topic)].into();
        violations(&Facts {
            rows,
            on_topic,
            ..Facts::default()
        })
        .len()
    }

    #[test]
    fn rows_of_one_transaction_keep_their_order() {
        let rows = || {
            vec![
                row(1, "9", false, None),
                row(2, "9", false, None),
                row(3, "9", false, None),
            ]
        };
        assert_eq!(count(rows(), &[1, 2, 3]), 0);
        assert_eq!(count(rows(), &[2, 3, 1]), 2);
        assert_eq!(count(rows(), &[1, 3, 2]), 1);
    }

    #[test]
    fn concurrent_writers_without_a_lock_promise_nothing() {
        assert_eq!(
            count(vec![row(1, "8", false, None), row(2, "9", false, None)], &[2, 1]),
            0
        );
        assert_eq!(
            count(vec![row(1, "8", true, None), row(2, "9", true, None)], &[2, 1]),
            1
        );
    }

    #[test]
    fn outcomes_follow_the_offsets_of_their_input_also_where_the_ids_do_not() {
        assert_eq!(
            count(vec![row(1, "8", true, Some(5)), row(2, "9", true, Some(4))], &[1, 2]),
            1
        );
        assert_eq!(
            count(vec![row(1, "8", true, Some(4)), row(2, "9", true, Some(5))], &[1, 2]),
            0
        );
    }

    #[test]
    fn what_an_operator_put_back_may_come_late() {
        let mut late = row(1, "9", true, None);
        late.is_redriven = true;
        assert_eq!(count(vec![late, row(2, "9", true, None)], &[2, 1]), 0);
    }
}
