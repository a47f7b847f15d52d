//! `claimfirst reconcile` on real Kafka and Postgres: a clean system passes, a running one is never called wrong, and
//! damage done on purpose is found and named.
//!
//! | module | shows |
//! |---|---|
//! | [`clean`] | a stream with everything in it, and rows that no promise covers |
//! | [`live`] | services that work, die and come back meanwhile |
//! | [`damage`] | one thing deleted, added, changed or moved, and what it is called |
//! | [`order`] | a topic that was written in the right order, and in a wrong one |
//! | [`gone`] | what retention has removed, and windows |
//! | [`restored`] | a database that is older than Kafka |
//! | [`remedies`] | what a finding prints as its remedy, typed |
//! | [`refusals`] | what cannot be found out is no verdict |

mod clean;
pub(crate) mod damage;
mod gone;
mod live;
mod order;
mod refusals;
pub(crate) mod remedies;
mod restored;

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, ensure};
use harness::input::Inputs;
use harness::stack::unique;
use harness::{Record, Service, Verdict, folders};
use serde_json::Value;
use shared::clock;

use crate::triage::scene::{Scene, drain};

/// What `claimfirst` said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) report: Value,
}

impl Said {
    /// Findings of a class, by code, and how many there are.
    pub(crate) fn of_class(&self, class: &str) -> BTreeMap<String, u64> {
        let findings = self.report["findings"].as_array().cloned().unwrap_or_default();
        let chosen = findings.iter().filter(|finding| finding["class"] == class);
        chosen
            .filter_map(|finding| Some((finding["code"].as_str()?.to_owned(), finding["count"].as_u64()?)))
            .collect()
    }

    /// The examples of one code.
    pub(crate) fn examples(&self, code: &str) -> Vec<Value> {
        let findings = self.report["findings"].as_array().cloned().unwrap_or_default();
        let found = findings.iter().find(|finding| finding["code"] == code);
        found
            .and_then(|finding| finding["examples"].as_array().cloned())
            .unwrap_or_default()
    }

    /// Ends the test unless exactly this is wrong, so often each.
    pub(crate) fn expect_wrong(&self, expected: &[(&str, u64)]) {
        let expected: BTreeMap<_, _> = expected
            .iter()
            .map(|(code, count)| ((*code).to_owned(), *count))
            .collect();
        assert_eq!(self.of_class("wrong"), expected, "{:#}", self.report);
        assert_eq!(self.code, i32::from(!expected.is_empty()), "{:#}", self.report);
        assert_eq!(self.report["ok"], expected.is_empty());
    }

    /// Ends the test unless nothing is wrong.
    pub(crate) fn expect_clean(&self) {
        self.expect_wrong(&[]);
    }
}

/// The tool, with the settings of a scene.
pub(crate) fn tool(scene: &Scene) -> Service {
    Service::tool("claimfirst")
        .set("KAFKA__BROKERS", &scene.brokers)
        .set("KAFKA__GROUP", &scene.triage.group)
        .set("DATABASE__URL", &scene.database.url)
        .set("TOPICS__INPUT", scene.input())
        .set("TOPICS__OUTPUT", &scene.triage.output)
        .set("TOPICS__DEAD_LETTER", &scene.triage.dead_letter)
}

/// Asks for a verdict; the report is read from the file that it is written to.
pub(crate) async fn reconcile(scene: &Scene, arguments: &[&str]) -> anyhow::Result<Said> {
    let file = folders::logs()?.join(format!("{}.json", unique("reconcile")));
    let path = file.to_str().context("the log folder has a name in UTF-8")?;
    let arguments = [&["reconcile", "--report", path][..], arguments].concat();
    let (code, printed, complained) = tool(scene).run_with(&arguments).await?;
    let code = code.context("it was not killed")?;
    ensure!(code < 2, "{arguments:?} could not find out: {complained}{printed}");
    let report = serde_json::from_str(&fs::read_to_string(&file)?).context("the report is JSON")?;
    Ok(Said { code, report })
}

/// A stream with everything in it, decided and published; the services have drained.
pub(crate) async fn system(test: &str, records: usize) -> anyhow::Result<(Scene, Verdict)> {
    system_of(test, stream(records)).await
}

/// These records, decided and published; the services have drained.
pub(crate) async fn system_of(test: &str, records: Vec<Record>) -> anyhow::Result<(Scene, Verdict)> {
    let scene = Scene::new(test, 3).await?;
    let service = scene.start("decides").await?;
    scene.send(records).await?;
    scene.until_passed().await?;
    drain(vec![service]).await?;
    scene.publish().await?;
    let verdict = scene.judge(&scene.triage).await?;
    Ok((scene, verdict))
}

/// Records with duplicates, dead letters and other bodies among them, made now.
pub(crate) fn stream(records: usize) -> Vec<Record> {
    let now = clock::unix_millis();
    eprintln!("{records} records, seed and time {now}");
    Inputs::new(now.unsigned_abs(), now)
        .take(records)
        .map(|input| input.record)
        .collect()
}
