//! What the documents and the deployment files tell people to type.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Context;
use harness::{Service, Stack, folders};
use sqlx::{AssertSqlSafe, Connection};

const DOCUMENTS: [&str; 2] = ["README.md", "docs/operations.md"];

fn read(file: impl AsRef<Path>) -> anyhow::Result<String> {
    let path = folders::workspace().join(file);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// The texts between the marks: every second piece.
fn between<'t>(text: &'t str, mark: &str) -> impl Iterator<Item = &'t str> {
    text.split(mark).skip(1).step_by(2)
}

fn without_blocks(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// SQL of fenced blocks and of code in the line, a statement each.
fn statements(text: &str) -> Vec<String> {
    let fenced = between(text, "```").filter_map(|block| block.strip_prefix("sql\n"));
    let plain = without_blocks(text);
    let inline = between(&plain, "`").filter(|code| code.starts_with("select "));
    let without_comments = |code: &str| -> String {
        let lines = code.lines().map(|line| line.split("--").next().unwrap_or_default());
        lines.collect::<Vec<_>>().join("\n")
    };
    fenced
        .map(without_comments)
        .chain(inline.map(str::to_owned))
        .flat_map(|code| code.split(';').map(|one| one.trim().to_owned()).collect::<Vec<_>>())
        .filter(|statement| !statement.is_empty())
        .collect()
}

#[tokio::test]
async fn statements_in_the_documents_run() -> anyhow::Result<()> {
    // given
    let database = Stack::shared().await?.database("documents").await?;
    let mut connection = database.connect().await?;
    for document in DOCUMENTS {
        let statements = statements(&read(document)?);
        assert!(statements.len() > 2, "{document} has {statements:?}");
        for statement in statements {
            // when: a reader puts an id in the place of PID
            let mut tx = connection.begin().await?;
            let typed = statement.replace("PID", "0");
            let ran = sqlx::raw_sql(AssertSqlSafe(typed)).execute(&mut *tx).await;

            // then
            ran.with_context(|| format!("{document} says: {statement}"))?;
            tx.rollback().await?;
        }
    }
    Ok(())
}

/// Every file that sets settings of the services.
fn deployment_files() -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![folders::workspace().join("docker")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        } else {
            found.push(String::from_utf8_lossy(&fs::read(&path)?).into_owned());
        }
    }
    Ok(found)
}

/// Names of variables with this prefix.
fn variables(text: &str, prefix: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.split(|c: char| !is_part(c))
        .filter(|word| word.starts_with(prefix) && word.len() > prefix.len())
        .map(str::to_owned)
        .collect()
}

/// Settings named in code in the line, as `relay.drain_ms`.
fn settings_named(plain: &str) -> BTreeSet<&str> {
    const SECTIONS: [&str; 11] = [
        "database",
        "http",
        "intake",
        "kafka",
        "lease",
        "policy",
        "relay",
        "retention",
        "retry",
        "telemetry",
        "topics",
    ];
    let is_setting = |code: &&str| {
        let is_plain = code.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '.');
        code.split_once('.')
            .is_some_and(|(section, name)| is_plain && SECTIONS.contains(&section) && name != "rs")
    };
    between(plain, "`")
        .map(|code| code.split([' ', '=']).next().unwrap_or(code))
        .filter(is_setting)
        .collect()
}

#[tokio::test]
async fn settings_in_deployment_files_and_documents_are_known() -> anyhow::Result<()> {
    // given
    let files = deployment_files()?.join("\n");
    let mut known = String::new();
    for (prefix, service) in [
        ("TRIAGE__", Service::triage("settings")),
        ("OUTBOX__", Service::publisher("settings")),
    ] {
        let named = variables(&files, prefix);
        assert!(named.len() > 2, "{named:?}");

        // when: all of them are set, to whatever, and one that nobody knows
        let asked = named
            .iter()
            .fold(service.clone(), |service, name| service.variable(name, 1));
        let asked = asked.variable(&format!("{prefix}NO__SUCH"), 1);
        let (_, _, refused) = asked.run_with(&["--check-config"]).await?;

        // then
        let unknown: Vec<_> = refused
            .lines()
            .filter(|line| line.contains("is no known setting"))
            .collect();
        assert!(unknown.len() == 1 && unknown[0].contains("NO__SUCH"), "{refused}");
        let usual = service.set("DATABASE__URL", "postgres://u@h/d");
        known += &usual.run_with(&["--check-config"]).await?.1;
    }
    for document in DOCUMENTS {
        let plain = without_blocks(&read(document)?);
        for setting in settings_named(&plain) {
            let is_known = known.lines().any(|line| {
                let name = line.split(" = ").next().unwrap_or_default();
                name == setting || name.starts_with(&format!("{setting}."))
            });
            assert!(is_known, "{document} names the setting {setting}, which no service has");
        }
    }
    Ok(())
}
