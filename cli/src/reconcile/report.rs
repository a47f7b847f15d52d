//! The answer for scripts, as JSON, and for people, as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::code::{Class, Code};
use super::finding::{Example, Found};
use super::{Answer, TopicRead};

/// Findings that mean: an event is lost.
const LOST: [Code; 5] = [
    Code::OffsetPastUnclaimed,
    Code::ClaimWithoutDecision,
    Code::ClaimWithoutOutcome,
    Code::ClaimWithoutDeadLetter,
    Code::PublishedWithoutRecord,
];
/// Width of a line of text.
const WIDTH: usize = 110;

/// The answer, with the members that all reports have.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// Addresses are given, whoever runs what is behind them.
    pub stack: &'static str,
    /// The commit that the tool was built from, where its build was told.
    pub commit: &'static str,
    /// The tool's version.
    pub version: &'static str,
    /// When it began.
    pub started_at: String,
    /// How long it took.
    pub duration_seconds: f64,
    /// Input records.
    pub records_in: u64,
    /// Claims.
    pub events_unique: u64,
    /// Input records that repeat a claimed one.
    pub duplicates_suppressed: u64,
    /// Claims that were set aside.
    pub dead_lettered: u64,
    /// Decisions, by outcome.
    pub decisions: BTreeMap<String, u64>,
    /// Events on the output topics.
    pub published: u64,
    /// Events without a claim, a decision, an outcome or a record that must be there.
    pub lost: u64,
    /// Events with two decisions or two outcomes.
    pub decided_twice: u64,
    /// Inversions among the pairs whose order is promised.
    pub order_violations: u64,
    /// Records whose event id stood on the topic before.
    pub publish_duplicates: u64,
    /// The topics that were read.
    pub topics: Vec<TopicRead>,
    /// Outbox rows.
    pub outbox_rows: u64,
    /// What was found.
    pub findings: Vec<Finding>,
    /// What was left out, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One kind of finding.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Its name, fixed for scripts.
    pub code: &'static str,
    /// How grave it is.
    pub class: Class,
    /// How many.
    pub count: u64,
    /// What it means.
    pub meaning: &'static str,
    /// What mends it, or what to look at.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub remedy: &'static str,
    /// The first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Example>,
}

impl Finding {
    fn of((code, found): (Code, &Found)) -> Self {
        let about = code.about();
        Self {
            code: about.name,
            class: about.class,
            count: found.count,
            meaning: about.meaning,
            remedy: about.remedy,
            examples: found.examples.clone(),
        }
    }
}

impl Report {
    /// Of an answer that was begun at a moment and took so many seconds.
    pub fn of(answer: Answer, started_at: DateTime<Utc>, duration_seconds: f64) -> Self {
        let Answer {
            findings,
            intake,
            outbox,
            topics,
            notes,
        } = answer;
        Self {
            ok: findings.is_clean(),
            stack: "env",
            commit: option_env!("CLAIMFIRST_COMMIT").unwrap_or("unknown"),
            version: env!("CARGO_PKG_VERSION"),
            started_at: started_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            duration_seconds,
            records_in: intake.records,
            events_unique: intake.claims,
            duplicates_suppressed: intake.duplicates,
            dead_lettered: intake.set_aside,
            decisions: intake.decisions,
            published: outbox.published,
            lost: findings.sum(&LOST),
            decided_twice: findings.sum(&[Code::DecidedTwice, Code::OutcomeTwice]),
            order_violations: findings.of(Code::OrderInverted),
            publish_duplicates: findings.of(Code::PublishedAgain),
            topics,
            outbox_rows: outbox.rows,
            findings: findings.iter().map(Finding::of).collect(),
            notes,
        }
    }

    /// The report as JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report is plain data") + "\n"
    }

    /// The report for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        self.tell_topics(&mut text);
        self.tell_numbers(&mut text);
        for class in Class::ALL {
            let mut findings = self.findings.iter().filter(|finding| finding.class == class).peekable();
            if findings.peek().is_some() {
                text += &format!("\n{}\n", class.title());
            }
            for finding in findings {
                finding.tell(&mut text);
            }
        }
        for note in &self.notes {
            text += &wrapped("\nnote: ", note);
        }
        text + "\n" + &self.verdict() + "\n"
    }

    /// One line: yes or no, and what of.
    pub fn verdict(&self) -> String {
        let wrong = self.findings.iter().filter(|finding| finding.class == Class::Wrong);
        let wrong: Vec<_> = wrong
            .map(|finding| format!("{} {}", finding.code, grouped(finding.count)))
            .collect();
        let took = format!("{:.1} s", self.duration_seconds);
        if wrong.is_empty() {
            let (records, rows) = (grouped(self.records_in), grouped(self.outbox_rows));
            format!("NOTHING IS WRONG  {records} input records, {rows} outbox rows; {took}")
        } else {
            format!("WRONG  {}; {took}", wrong.join(", "))
        }
    }

    fn tell_topics(&self, text: &mut String) {
        let width = self
            .topics
            .iter()
            .map(|topic| topic.name.len())
            .max()
            .unwrap_or(0)
            .max(5);
        let _ = writeln!(
            text,
            "{:<width$}          partitions       offsets  removed before",
            "topic"
        );
        for topic in &self.topics {
            let role = if topic.is_input { "input" } else { "output" };
            let (records, removed) = (grouped(topic.records), grouped(topic.removed));
            let (name, partitions) = (&topic.name, topic.partitions);
            let _ = writeln!(
                text,
                "{name:<width$}  {role:<6}  {partitions:>10}  {records:>12}  {removed:>14}"
            );
        }
        text.push('\n');
    }

    fn tell_numbers(&self, text: &mut String) {
        let outcomes = self
            .decisions
            .iter()
            .map(|(outcome, count)| format!("{outcome} {}", grouped(*count)));
        let outcomes = outcomes.collect::<Vec<_>>().join(", ");
        let numbers = [
            ("input records", self.records_in, ""),
            ("  repeat a claimed one", self.duplicates_suppressed, ""),
            ("claims", self.events_unique, ""),
            ("  dead-lettered", self.dead_lettered, ""),
            ("decisions", self.decisions.values().sum(), outcomes.as_str()),
            ("outbox rows", self.outbox_rows, ""),
            ("events on output topics", self.published, ""),
        ];
        for (label, number, note) in numbers {
            let line = format!("{label:<24}{:>12}   {note}", grouped(number));
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
}

impl Finding {
    fn tell(&self, text: &mut String) {
        let _ = writeln!(text, "  {:<26}{:>12}", self.code, grouped(self.count));
        text.push_str(&wrapped("      ", self.meaning));
        for example in &self.examples {
            let _ = writeln!(text, "        {example}");
        }
        let named = self.examples.len() as u64;
        if named > 0 && self.count > named && self.class == Class::Wrong {
            let _ = writeln!(text, "        and {} more", grouped(self.count - named));
        }
        if !self.remedy.is_empty() {
            text.push_str(&wrapped("      > ", self.remedy));
        }
    }
}

/// Text in lines that are not too long; those after the first are indented as far as the first.
fn wrapped(indent: &str, text: &str) -> String {
    let blank = " ".repeat(indent.trim_start_matches('\n').len());
    let mut lines = indent.to_owned();
    let mut column = blank.len();
    for (n, word) in text.split_whitespace().enumerate() {
        if n > 0 && column + word.len() + 1 > WIDTH {
            lines += &format!("\n{blank}");
            column = blank.len();
        } else if n > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += word.len();
    }
    lines + "\n"
}

/// A number with commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::finding::Findings;
    use super::super::intake::Intake;
    use super::super::outbox::Outbox;
    use super::*;

    fn report(findings: Findings) -> Report {
        let answer = Answer {
            findings,
            intake: Intake {
                records: 44_480,
                claimed: 40_649,
                duplicates: 3_831,
                claims: 40_649,
                set_aside: 1_527,
                decisions: [("ACCEPT".to_owned(), 21_703), ("REJECT".to_owned(), 17_419)].into(),
            },
            outbox: Outbox {
                rows: 40_649,
                records: 40_710,
                published: 40_649,
            },
            topics: vec![
                TopicRead {
                    name: "orders.v1".to_owned(),
                    is_input: true,
                    partitions: 6,
                    records: 44_480,
                    removed: 0,
                },
                TopicRead {
                    name: "decisions.v1".to_owned(),
                    is_input: false,
                    partitions: 6,
                    records: 40_710,
                    removed: 1_000,
                },
            ],
            notes: vec!["topic elsewhere does not exist, or this login may not see it".to_owned()],
        };
        let began = DateTime::from_timestamp(1_763_678_412, 0).expect("a moment");
        Report::of(answer, began, 2.25)
    }

    fn damaged() -> Findings {
        let mut findings = Findings::new(2);
        for offset in 7..10 {
            let example = Example::record("decisions.v1", 3, offset).event(Uuid::nil());
            findings.add(Code::PayloadDiffers, || example);
        }
        findings.add(Code::OffsetPastUnclaimed, || {
            Example::record("orders.v1", 0, 41).event(Uuid::nil())
        });
        findings.count(Code::RowPending, 12);
        findings.count(Code::RecordGone, 1_000);
        findings.count(Code::PublishedAgain, 61);
        findings
    }

    #[test]
    fn the_table_tells_what_is_wrong_and_what_to_do() {
        insta::assert_snapshot!(report(damaged()).table());
    }

    #[test]
    fn a_clean_report_says_so() {
        let mut findings = Findings::new(2);
        findings.count(Code::RowPending, 12);
        let report = report(findings);
        assert!(report.ok);
        assert!(report.verdict().starts_with("NOTHING IS WRONG"), "{}", report.verdict());
    }

    #[test]
    fn json_has_the_members_that_all_reports_have() {
        let json: serde_json::Value = serde_json::from_str(&report(damaged()).json()).expect("it is JSON");
        for member in [
            "ok",
            "stack",
            "commit",
            "started_at",
            "duration_seconds",
            "records_in",
            "events_unique",
            "duplicates_suppressed",
            "dead_lettered",
            "decisions",
            "published",
            "lost",
            "decided_twice",
            "order_violations",
            "publish_duplicates",
            "findings",
        ] {
            assert!(json.get(member).is_some(), "{member}");
        }
        assert_eq!(json["ok"], false);
        assert_eq!(json["lost"], 1);
        assert_eq!(json["publish_duplicates"], 61);
        assert_eq!(json["findings"][0]["code"], "offset-past-unclaimed");
        assert_eq!(json["findings"][1]["examples"][0]["offset"], 7);
    }

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
