//! What Prometheus answers to the dashboard and to the alerts.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::wait::{self, Seen};
use harness::{folders, process};
use serde_json::Value;

const DASHBOARD: &str = "docker/observe/grafana/dashboards/claimfirst.json";
/// Prometheus scrapes every 5 s, and a rate needs two scrapes of each instance.
const DATA_WITHIN: Duration = Duration::from_secs(60);
/// What Grafana puts in place of this depends on the zoom.
const RATE_INTERVAL: (&str, &str) = ("$__rate_interval", "1m");

/// A query of a panel.
#[derive(Debug)]
struct Query {
    panel: String,
    expression: String,
}

/// Waits until every query of every panel has data, and returns how many there are.
///
/// # Errors
/// Naming each panel and query that stays empty.
pub async fn every_panel_has_data(prometheus: SocketAddr) -> anyhow::Result<usize> {
    let queries = queries_of_the_dashboard()?;
    wait::until("every query of the dashboard to have data", DATA_WITHIN, || async {
        let mut empty = Vec::new();
        for query in &queries {
            if !has_data(prometheus, &query.expression).await? {
                empty.push(format!("\"{}\": {}", query.panel, query.expression));
            }
        }
        Ok(if empty.is_empty() {
            Seen::Yes(())
        } else {
            Seen::NotYet(format!("no data in {}", empty.join("; ")))
        })
    })
    .await?;
    Ok(queries.len())
}

/// Checks that Prometheus can evaluate every alert, that each metric an alert asks for is there, and that
/// none fires. Returns how many there are.
///
/// # Errors
/// Naming the alerts and metrics for which that does not hold.
pub async fn every_alert_sees_and_is_silent(prometheus: SocketAddr) -> anyhow::Result<usize> {
    let alerts = wait::until("Prometheus to have evaluated its alerts", DATA_WITHIN, || async {
        let rules = alerts_of(prometheus).await?;
        let is_evaluated = rules.iter().all(|rule| rule["health"] != "unknown");
        Ok(Seen::when(rules, |rules| !rules.is_empty() && is_evaluated))
    })
    .await?;
    let mut problems = Vec::new();
    for alert in &alerts {
        let name = alert["name"].as_str().unwrap_or_default();
        if alert["health"] != "ok" {
            problems.push(format!("{name} cannot be evaluated: {}", alert["lastError"]));
        }
        if alert["state"] == "firing" {
            problems.push(format!("{name} fires, though all is well: {}", alert["alerts"]));
        }
        for metric in metrics_in(alert["query"].as_str().unwrap_or_default()) {
            if !has_data(prometheus, metric).await? {
                problems.push(format!("{name} asks for {metric}, which nobody exports"));
            }
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    Ok(alerts.len())
}

async fn alerts_of(prometheus: SocketAddr) -> anyhow::Result<Vec<Value>> {
    let data = ask(prometheus, "/api/v1/rules?type=alert").await?;
    let groups = data["groups"].as_array().context("rules come in groups")?;
    Ok(groups
        .iter()
        .flat_map(|group| group["rules"].as_array())
        .flatten()
        .cloned()
        .collect())
}

fn queries_of_the_dashboard() -> anyhow::Result<Vec<Query>> {
    let text = fs::read_to_string(folders::workspace().join(DASHBOARD)).context("read the dashboard")?;
    let dashboard: Value = serde_json::from_str(&text).context("the dashboard is JSON")?;
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().context("a dashboard has panels")? {
        let title = panel["title"].as_str().unwrap_or_default();
        let targets = panel["targets"].as_array();
        ensure!(
            targets.is_some() || panel["type"] == "row",
            "panel \"{title}\" has no query"
        );
        for target in targets.into_iter().flatten() {
            let expression = target["expr"].as_str().context("a target has an expression")?;
            let (variable, value) = RATE_INTERVAL;
            queries.push(Query {
                panel: title.to_owned(),
                expression: expression.replace(variable, value),
            });
        }
    }
    ensure!(!queries.is_empty(), "the dashboard has no query");
    Ok(queries)
}

/// Whether there is a number in the answer; NaN is none.
async fn has_data(prometheus: SocketAddr, expression: &str) -> anyhow::Result<bool> {
    let data = ask(prometheus, &format!("/api/v1/query?query={}", encoded(expression))).await?;
    let series = data["result"].as_array().context("a query has a result")?;
    Ok(series
        .iter()
        .any(|one| one["value"][1].as_str().is_some_and(|value| value != "NaN")))
}

async fn ask(prometheus: SocketAddr, path: &str) -> anyhow::Result<Value> {
    let answer = process::get(prometheus, path).await?;
    let mut body: Value =
        serde_json::from_str(&answer.body).with_context(|| format!("{path} is answered with {}", answer.body))?;
    ensure!(body["status"] == "success", "{path} is answered with {body}");
    Ok(body["data"].take())
}

/// Names of metrics of ours in an expression.
fn metrics_in(expression: &str) -> impl Iterator<Item = &str> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("triage_") || word.starts_with("outbox_") || *word == "up")
}

fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_in_an_expression() {
        let expression =
            r#"sum(rate(triage_attempts_total{result="committed"}[1m])) == 0 and outbox_buckets_held < 64"#;
        let found: Vec<_> = metrics_in(expression).collect();
        assert_eq!(found, ["triage_attempts_total", "outbox_buckets_held"]);
    }

    #[test]
    fn an_expression_travels_in_an_address() {
        assert_eq!(encoded("a{b=\"c\"}"), "a%7Bb%3D%22c%22%7D");
    }
}
