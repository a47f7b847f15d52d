//! What holds of the sources themselves: which way they depend, where SQL stands, and that documents name
//! what is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use harness::folders;

/// Files under a folder with this ending, or the file itself.
fn files(under: &str, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folders::workspace().join(under)];
    while let Some(path) = folders.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("the sources are readable");
            folders.extend(entries.map(|entry| entry.expect("the sources are readable").path()));
        } else if path.extension().is_some_and(|found| found == ending) {
            let text = fs::read_to_string(&path).expect("the sources are text");
            found.push((path, text));
        }
    }
    assert!(!found.is_empty(), "no .{ending} in {under}");
    found
}

fn assert_none_names(places: &[&str], words: &[&str]) {
    for (path, text) in places.iter().flat_map(|place| files(place, "rs")) {
        for word in words {
            assert!(!text.contains(word), "{} names {word}", path.display());
        }
    }
}

#[test]
fn the_domain_does_no_io() {
    let pure = [
        "triage-service/src/domain",
        "triage-service/src/intake.rs",
        "triage-service/src/intake/assignments.rs",
        "triage-service/src/intake/batch.rs",
        "triage-service/src/intake/flight.rs",
        "triage-service/src/intake/watermark.rs",
        "outbox-publisher/src/domain",
        "outbox-publisher/src/relay",
        "cli/src/reconcile/code.rs",
        "cli/src/reconcile/copy.rs",
        "cli/src/reconcile/finding.rs",
        "cli/src/reconcile/judge.rs",
        "cli/src/reconcile/record.rs",
        "cli/src/reconcile/report.rs",
        "cli/src/reconcile/window.rs",
    ];
    let io = [
        "sqlx",
        "rdkafka",
        "tokio",
        "SystemTime::now",
        "Instant::now",
        "Utc::now",
    ];
    assert_none_names(&pure, &io);
}

#[test]
fn services_know_shared_and_not_each_other() {
    assert_none_names(&["triage-service/src"], &["outbox_publisher"]);
    assert_none_names(&["outbox-publisher/src"], &["triage_service"]);
    assert_none_names(&["cli/src"], &["triage_service", "outbox_publisher", "harness"]);
    assert_none_names(
        &["shared/src"],
        &["triage_service", "outbox_publisher", "cli::reconcile", "harness"],
    );
}

#[test]
fn sql_stands_in_store_modules_only() {
    let stores = [
        "triage-service/src/postgres/",
        "outbox-publisher/src/postgres/",
        "shared/src/postgres",
        "shared/src/outbox.rs",
        "shared/src/doorbell.rs",
        "cli/src/reconcile/postgres",
    ];
    for (path, text) in ["triage-service/src", "outbox-publisher/src", "cli/src", "shared/src"]
        .iter()
        .flat_map(|place| files(place, "rs"))
    {
        let shown = path
            .strip_prefix(folders::workspace())
            .unwrap_or(&path)
            .display()
            .to_string();
        let is_store = stores.iter().any(|store| shown.contains(store));
        let has_sql = ["sqlx::query", "query_as(", "query_scalar(", "raw_sql("]
            .iter()
            .any(|call| text.contains(call));
        assert!(is_store || !has_sql, "{shown} holds SQL");
    }
}

/// Words in backticks that are named like a test; a module before it is left out.
fn tests_named(text: &str) -> BTreeSet<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let names = quoted.map(|name| name.rsplit("::").next().unwrap_or(name));
    let is_name = |name: &&str| {
        name.chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    names
        .filter(is_name)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Functions and, for those that a macro makes, the names that are given to it.
fn functions() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, text) in ["shared", "triage-service", "outbox-publisher", "cli", "tests"]
        .iter()
        .flat_map(|place| files(place, "rs"))
    {
        for line in text.lines().map(str::trim_start) {
            let name = match line.split_once("fn ") {
                Some((_, rest)) => rest.split(['(', '<']).next(),
                None => line.split_once(": ").map(|(name, _)| name),
            };
            found.extend(name.map(str::to_owned));
        }
    }
    found
}

#[test]
fn documents_name_tests_that_exist() {
    let known = functions();
    let mut missing = Vec::new();
    for (path, text) in files("docs", "md") {
        let is_rules = path.ends_with("rules.md");
        let is_guarantees = path.ends_with("guarantees.md");
        // In the table of rules the last column names tests, in a decision its confirmation does.
        let named: BTreeSet<String> = if is_rules {
            let rows = text.lines().filter(|line| line.starts_with("| "));
            rows.filter_map(|row| row.trim_end_matches([' ', '|']).rsplit('|').next())
                .flat_map(tests_named)
                .collect()
        } else if is_guarantees {
            tests_named(&text)
                .difference(&settings_of_postgres())
                .cloned()
                .collect()
        } else {
            let confirmation = text.split_once("## Confirmation").map_or("", |(_, rest)| rest);
            let tests = confirmation.split("Metric").next().unwrap_or_default();
            tests_named(tests)
        };
        let absent = named.difference(&known).filter(|name| name.contains('_'));
        missing.extend(absent.map(|name| format!("{} names {name}", path.display())));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// What docs/guarantees.md has in backticks and is no test.
fn settings_of_postgres() -> BTreeSet<String> {
    [
        "full_page_writes",
        "synchronous_commit",
        "outbox_enqueue",
        "outbox_failed",
        "outbox_events_id_seq",
        "low_id",
    ]
    .map(str::to_owned)
    .into()
}

/// Whatever reconcile calls wrong breaks a guarantee; whatever the guarantees call by a code, reconcile knows.
#[test]
fn guarantees_and_reconcile_know_each_other() {
    let read = |file: &str| fs::read_to_string(folders::workspace().join(file)).expect("there is one");
    let codes = read("cli/src/reconcile/code/snapshots/cli__reconcile__code__tests__codes_keep_their_names.snap");
    let codes: Vec<(&str, &str)> = codes.lines().skip(4).filter_map(|line| line.split_once(' ')).collect();
    let guarantees = read("docs/guarantees.md");
    let is_code = |word: &&str| {
        word.contains('-') && !word.starts_with('-') && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
    };
    let named: BTreeSet<&str> = guarantees.split('`').skip(1).step_by(2).filter(is_code).collect();
    for (code, class) in &codes {
        let is_wrong = class.trim() == "Wrong";
        assert!(!is_wrong || named.contains(code), "docs/guarantees.md has no {code}");
    }
    for name in named
        .into_iter()
        .filter(|name| !["event-id", "outbox-id", "outbox-epoch"].contains(name))
    {
        assert!(codes.iter().any(|(code, _)| *code == name), "reconcile has no {name}");
    }
}

/// `relay/side.rs` (`take_look`) promises that the function stands in that file.
#[test]
fn rules_name_functions_where_they_are() {
    let sources: Vec<_> = ["shared", "triage-service", "outbox-publisher", "cli"]
        .iter()
        .flat_map(|place| files(place, "rs"))
        .collect();
    let rules = fs::read_to_string(folders::workspace().join("docs/rules.md")).expect("there is one");
    let (mut checked, mut astray) = (0, Vec::new());
    for row in rules.lines() {
        for (named, before) in row.split(".rs` (").skip(1).zip(row.split(".rs` (")) {
            let file = format!("{}.rs", before.rsplit('`').next().unwrap_or_default());
            let named = named.split(')').next().unwrap_or_default();
            for name in named.split('`').skip(1).step_by(2) {
                let name = name.rsplit("::").next().unwrap_or(name);
                let mut found = sources.iter().filter(|(path, _)| path.ends_with(&file));
                if !found.any(|(_, text)| text.contains(name)) {
                    astray.push(format!("{file} has no {name}"));
                }
                checked += 1;
            }
        }
    }
    assert!(astray.is_empty(), "{}", astray.join("\n"));
    assert!(checked > 30, "{checked}");
}

#[test]
fn the_readme_names_targets_of_the_makefile() {
    let readme = fs::read_to_string(folders::workspace().join("README.md")).expect("there is one");
    let makefile = fs::read_to_string(folders::workspace().join("Makefile")).expect("there is one");
    let after_make = readme.split("make ").skip(1);
    let named: BTreeSet<&str> = after_make
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_lowercase()).next())
        .collect();
    let is_target = |name: &str| makefile.lines().any(|line| line.starts_with(&format!("{name}:")));
    for command in ["demo", "test", "check", "floor"] {
        assert!(
            named.contains(command),
            "the README does not say what make {command} does"
        );
        assert!(is_target(command), "make {command} does nothing");
    }
    assert!(Path::new(&folders::workspace()).join(".ci/run").exists());
}
