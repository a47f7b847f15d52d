//! The effective settings, for people.

use std::collections::BTreeMap;

use figment::value::Value;
use serde::Serialize;

use super::{KeyPath, Origin, layers};

pub(super) fn describe<S: Serialize>(settings: &S, origins: &BTreeMap<KeyPath, Origin>) -> String {
    let tree = layers::defaults(settings);
    let lines: Vec<_> = layers::leaves(&tree)
        .into_iter()
        .map(|(path, value)| {
            let origin = origins.get(&path).unwrap_or(&Origin::Default);
            (format!("{} = {}", key(&path), shown(value)), origin)
        })
        .collect();
    let width = lines
        .iter()
        .map(|(text, _)| text.chars().count())
        .filter(|width| *width <= 60)
        .max()
        .unwrap_or(0);
    lines
        .iter()
        .map(|(text, origin)| format!("{text:width$}  # {origin}\n"))
        .collect()
}

/// As TOML has it: a name with a dot is quoted.
fn key(path: &[String]) -> String {
    let names: Vec<_> = path
        .iter()
        .map(|name| {
            if name.contains('.') {
                format!("{name:?}")
            } else {
                name.clone()
            }
        })
        .collect();
    names.join(".")
}

fn shown(value: &Value) -> String {
    match value {
        Value::Empty(..) => "(not set)".to_owned(),
        value => serde_json::to_string(value).unwrap_or_else(|_| "(not printable)".to_owned()),
    }
}
