//! What was found: how many of each kind, and some of them by name.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use uuid::Uuid;

use super::code::{Class, Code};

/// One of the things found, by all the names it has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Example {
    /// The topic of the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Its partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// Its offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// The event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Uuid>,
    /// `id` of the outbox row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<i64>,
    /// What else is to be said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Example {
    /// A record by its place.
    pub fn record(topic: &str, partition: i32, offset: i64) -> Self {
        Self {
            topic: Some(topic.to_owned()),
            partition: Some(partition),
            offset: Some(offset),
            ..Self::default()
        }
    }

    /// An outbox row of a topic.
    pub fn row(topic: &str, id: i64) -> Self {
        Self {
            topic: Some(topic.to_owned()),
            row: Some(id),
            ..Self::default()
        }
    }

    /// The same, of this event.
    #[must_use]
    pub const fn event(mut self, event_id: Uuid) -> Self {
        self.event_id = Some(event_id);
        self
    }

    /// The same, with something more to say.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }
}

impl fmt::Display for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match (&self.topic, self.partition, self.offset) {
            (Some(topic), Some(partition), Some(offset)) => Some(format!("{topic}[{partition}]@{offset}")),
            (Some(topic), Some(partition), None) => Some(format!("{topic}[{partition}]")),
            (Some(topic), None, _) => Some(topic.clone()),
            (None, ..) => None,
        };
        let parts = [
            place,
            self.row.map(|id| format!("row {id}")),
            self.event_id.map(|id| format!("event {id}")),
            self.note.clone(),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join("  "))
    }
}

/// How many of one kind, and the first few of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<Example>,
}

/// Everything found so far. Its size does not grow with what is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    found: BTreeMap<Code, Found>,
    examples_max: usize,
}

impl Findings {
    /// Nothing found; of each kind so many will be named.
    pub const fn new(examples_max: usize) -> Self {
        Self {
            found: BTreeMap::new(),
            examples_max,
        }
    }

    /// One more. The example is made only where it is kept.
    pub fn add(&mut self, code: Code, example: impl FnOnce() -> Example) {
        self.add_many(code, 1, example);
    }

    /// So many more, one of which is this. None at all is no finding.
    pub fn add_many(&mut self, code: Code, count: u64, example: impl FnOnce() -> Example) {
        if count == 0 {
            return;
        }
        let found = self.found.entry(code).or_default();
        found.count += count;
        if found.examples.len() < self.examples_max {
            found.examples.push(example());
        }
    }

    /// So many more, none of them named.
    pub fn count(&mut self, code: Code, count: u64) {
        if count > 0 {
            self.found.entry(code).or_default().count += count;
        }
    }

    /// How many of each kind are named, as a limit for a query.
    pub fn examples_max(&self) -> i64 {
        i64::try_from(self.examples_max).unwrap_or(i64::MAX)
    }

    /// How many of one kind.
    pub fn of(&self, code: Code) -> u64 {
        self.found.get(&code).map_or(0, |found| found.count)
    }

    /// How many of these kinds together.
    pub fn sum(&self, codes: &[Code]) -> u64 {
        codes.iter().map(|code| self.of(*code)).sum()
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.of_class(Class::Wrong).next().is_none()
    }

    /// The findings of one class, in the order of their codes.
    pub fn of_class(&self, class: Class) -> impl Iterator<Item = (Code, &Found)> {
        self.iter().filter(move |(code, _)| code.class() == class)
    }

    /// All findings, in the order of their codes.
    pub fn iter(&self) -> impl Iterator<Item = (Code, &Found)> {
        self.found.iter().map(|(code, found)| (*code, found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_few_however_much_is_found() {
        let mut findings = Findings::new(2);
        for offset in 0..1_000 {
            findings.add(Code::RecordWithoutRow, || Example::record("t", 0, offset));
        }
        let (_, found) = findings.iter().next().expect("something was found");
        assert_eq!((found.count, found.examples.len()), (1_000, 2));
    }

    #[test]
    fn only_what_is_wrong_makes_the_verdict_no() {
        let mut findings = Findings::new(1);
        for code in Code::ALL.into_iter().filter(|code| code.class() != Class::Wrong) {
            findings.count(code, 1);
        }
        assert!(findings.is_clean());
        findings.count(Code::DecidedTwice, 0);
        assert!(findings.is_clean());
        findings.count(Code::DecidedTwice, 1);
        assert!(!findings.is_clean());
    }

    #[test]
    fn an_example_reads_as_one_line() {
        let id = Uuid::nil();
        let example = Example::record("t", 3, 17).event(id).note("is new");
        assert_eq!(example.to_string(), format!("t[3]@17  event {id}  is new"));
        assert_eq!(Example::row("t", 9).to_string(), "t  row 9");
    }
}
