//! The layers above the defaults: which of their keys are known, and how they become settings.

use std::collections::BTreeMap;
use std::path::Path;

use figment::error::{Actual, Kind};
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{KeyPath, Origin, Problems, Setting};

/// The settings as a tree of values.
pub(super) fn defaults<S: Serialize>(settings: &S) -> Dict {
    match Value::serialize(settings) {
        Ok(Value::Dict(_, dict)) => dict,
        _ => unreachable!("settings are structs of plain values"),
    }
}

/// What keys there are.
pub(super) struct Known<'a> {
    pub(super) defaults: &'a Dict,
    pub(super) open: &'a [&'static str],
    pub(super) prefix: &'static str,
}

impl Known<'_> {
    /// The known settings of a TOML file.
    pub(super) fn file(&self, path: &Path, problems: &mut Problems) -> Vec<Setting> {
        let origin = Origin::File(path.to_owned());
        let mut settings = Vec::new();
        match Toml::file_exact(path).data() {
            Ok(mut profiles) => {
                let dict = profiles.remove(&Profile::Default).unwrap_or_default();
                self.walk(&mut Vec::new(), dict, &origin, &mut settings, problems);
            }
            Err(error) => problems.push(
                path.display().to_string(),
                None,
                without_snippet(&error.kind.to_string()),
            ),
        }
        settings
    }

    fn walk(
        &self,
        path: &mut KeyPath,
        dict: Dict,
        origin: &Origin,
        settings: &mut Vec<Setting>,
        problems: &mut Problems,
    ) {
        for (name, value) in dict {
            path.push(name);
            match (self.find(path), value) {
                (Key::Open, Value::Dict(_, dict)) => flatten(path, "", dict, origin, settings),
                (Key::Table, Value::Dict(_, dict)) => self.walk(path, dict, origin, settings, problems),
                (Key::Open | Key::Table, _) => {
                    problems.push(
                        path.join("."),
                        Some(origin.clone()),
                        "is a table, not a value".to_owned(),
                    );
                }
                (Key::Leaf(_), value) => {
                    settings.push(Setting {
                        path: path.clone(),
                        value,
                        text: None,
                        mistyped: None,
                        origin: origin.clone(),
                    });
                }
                (Key::Unknown, _) => {
                    let key = path.join(".");
                    let near = nearest(&key, self.names().map(|path| path.join(".")));
                    problems.push(key, Some(origin.clone()), unknown(near));
                }
            }
            path.pop();
        }
    }

    /// The known settings among the variables that begin with our prefix.
    pub(super) fn environment(
        &self,
        variables: impl IntoIterator<Item = (String, String)>,
        problems: &mut Problems,
    ) -> Vec<Setting> {
        let mut ours: Vec<_> = variables
            .into_iter()
            .filter(|(name, _)| name.starts_with(self.prefix))
            .collect();
        ours.sort();
        let mut settings = Vec::new();
        for (name, text) in ours {
            let path = self.path_of(&name[self.prefix.len()..]);
            match self.find(&path) {
                Key::Leaf(default) => {
                    // Where text is expected, digits are text too.
                    let value = match default {
                        Some(Value::String(..)) => Value::from(text.clone()),
                        _ => parse(&text),
                    };
                    settings.push(Setting {
                        path,
                        value,
                        text: Some(text),
                        mistyped: None,
                        origin: Origin::Env(name),
                    });
                }
                Key::Open | Key::Table => {
                    problems.push(
                        path.join("."),
                        Some(Origin::Env(name)),
                        "is a table, not a value".to_owned(),
                    );
                }
                Key::Unknown => {
                    let near = nearest(&name, self.names().map(|path| self.variable(&path)));
                    problems.push(path.join("."), Some(Origin::Env(name)), unknown(near));
                }
            }
        }
        settings
    }

    /// `KAFKA__PROPERTIES__LINGER_MS` is `kafka`, `properties`, `linger.ms`.
    fn path_of(&self, name: &str) -> KeyPath {
        let name = name.to_ascii_lowercase();
        for open in self.open {
            let table = format!("{}__", open.replace('.', "__"));
            if let Some(property) = name.strip_prefix(&table).filter(|property| !property.is_empty()) {
                let mut path: KeyPath = open.split('.').map(str::to_owned).collect();
                path.push(property.replace('_', "."));
                return path;
            }
        }
        name.split("__").map(str::to_owned).collect()
    }

    fn variable(&self, path: &[String]) -> String {
        format!("{}{}", self.prefix, path.join("__").to_ascii_uppercase())
    }

    fn find(&self, path: &[String]) -> Key<'_> {
        let mut dict = self.defaults;
        for (depth, name) in path.iter().enumerate() {
            let is_last = depth + 1 == path.len();
            let here = path[..=depth].join(".");
            if self.open.contains(&here.as_str()) {
                return match path.len() - depth {
                    1 => Key::Open,
                    2 => Key::Leaf(None), // any property
                    _ => Key::Unknown,
                };
            }
            match dict.get(name) {
                Some(Value::Dict(_, inner)) if !inner.is_empty() => dict = inner,
                Some(value) if is_last => return Key::Leaf(Some(value)),
                Some(_) | None => return Key::Unknown,
            }
        }
        Key::Table
    }

    /// Every value that has a default, and every open table.
    fn names(&self) -> impl Iterator<Item = KeyPath> {
        let mut names: Vec<KeyPath> = leaves(self.defaults).into_iter().map(|(path, _)| path).collect();
        names.extend(
            self.open
                .iter()
                .map(|open| open.split('.').map(str::to_owned).collect()),
        );
        names.into_iter()
    }
}

/// What stands at a path of the defaults.
enum Key<'a> {
    Leaf(Option<&'a Value>),
    Table,
    Open,
    Unknown,
}

/// Every value of a tree with its path. An empty table counts as a value.
pub(super) fn leaves(dict: &Dict) -> Vec<(KeyPath, &Value)> {
    let mut found = Vec::new();
    for (name, value) in dict {
        match value {
            Value::Dict(_, inner) if !inner.is_empty() => {
                for (mut path, value) in leaves(inner) {
                    path.insert(0, name.clone());
                    found.push((path, value));
                }
            }
            value => found.push((vec![name.clone()], value)),
        }
    }
    found
}

/// `linger.ms = 5` is a table in TOML and one property here.
fn flatten(path: &[String], above: &str, dict: Dict, origin: &Origin, settings: &mut Vec<Setting>) {
    for (name, value) in dict {
        let name = format!("{above}{name}");
        if let Value::Dict(_, inner) = value {
            flatten(path, &format!("{name}."), inner, origin, settings);
        } else {
            let mut path = path.to_vec();
            path.push(name);
            settings.push(Setting {
                path,
                value,
                text: None,
                mistyped: None,
                origin: origin.clone(),
            });
        }
    }
}

/// A variable's text as figment types it: numbers, booleans, lists.
fn parse(text: &str) -> Value {
    text.parse().unwrap_or_else(|_| Value::from(text.to_owned()))
}

/// Puts the layers over the defaults. A value of the wrong type is reported and left out, and the
/// rest is read again: so all of them are found.
pub(super) fn extract<S: Serialize + DeserializeOwned + Default>(
    mut settings: Vec<Setting>,
    problems: &mut Problems,
) -> S {
    loop {
        let figment = Figment::from(Serialized::defaults(S::default()))
            .merge(Layer::new("file", &settings, |origin| {
                matches!(origin, Origin::File(_))
            }))
            .merge(Layer::new("environment", &settings, |origin| {
                matches!(origin, Origin::Env(_))
            }));
        let error = match figment.extract::<S>() {
            Ok(extracted) => return extracted,
            Err(error) => error,
        };
        // The last one is the one that took effect.
        let at = settings.iter().rposition(|setting| {
            let common = setting.path.len().min(error.path.len());
            common > 0 && setting.path[..common] == error.path[..common]
        });
        let Some(at) = at else {
            problems.push(error.path.join("."), None, reason(&error.kind));
            return S::default();
        };
        if let (Some(text), false) = (
            settings[at].text.take(),
            matches!(settings[at].value, Value::String(..)),
        ) {
            // An optional text has no default to tell its type: `SERVICE_INSTANCE=7` is text after all.
            settings[at].value = Value::from(text);
            settings[at].mistyped = Some(reason(&error.kind));
            continue;
        }
        let setting = settings.remove(at);
        let reason = setting.mistyped.unwrap_or_else(|| reason(&error.kind));
        problems.push(setting.path.join("."), Some(setting.origin), reason);
    }
}

/// The settings of one origin, as figment takes them.
struct Layer {
    name: &'static str,
    dict: Dict,
}

impl Layer {
    fn new(name: &'static str, settings: &[Setting], is_ours: impl Fn(&Origin) -> bool) -> Self {
        let mut dict = Dict::new();
        for setting in settings.iter().filter(|setting| is_ours(&setting.origin)) {
            insert(&mut dict, &setting.path, setting.value.clone());
        }
        Self { name, dict }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

fn insert(dict: &mut Dict, path: &[String], value: Value) {
    match path {
        [] => {}
        [name] => {
            dict.insert(name.clone(), value);
        }
        [name, rest @ ..] => {
            let table = dict.entry(name.clone()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = table {
                insert(inner, rest, value);
            }
        }
    }
}

/// What is wrong, without the value itself where that could be a secret in the wrong place.
fn reason(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            format!("must be {expected}, not {}", outline(actual))
        }
        Kind::UnknownVariant(_, variants) => format!("must be one of {}", variants.join(", ")),
        kind => kind.to_string(),
    }
}

fn outline(actual: &Actual) -> String {
    match actual {
        Actual::Str(_) | Actual::Char(_) | Actual::Bytes(_) | Actual::Other(_) => "this text".to_owned(),
        actual => actual.to_string(),
    }
}

/// The TOML parser quotes the line it stumbled over, which may hold a password.
fn without_snippet(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.contains('|')).map(str::trim).collect();
    lines.join(" ").trim().to_owned()
}

fn unknown(near: Option<String>) -> String {
    near.map_or_else(
        || "is no known setting".to_owned(),
        |near| format!("is no known setting; did you mean {near}?"),
    )
}

/// The known name that was probably meant: few letters away, or the same word at another place.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let last = |name: &str| {
        name.rsplit(['.'])
            .next()
            .and_then(|name| name.rsplit("__").next())
            .map(str::to_owned)
    };
    let within = (name.len() / 6).max(2);
    let ranked = known.map(|known| (distance(name, &known), known));
    let best = ranked.min_by_key(
        |(distance, known)| {
            if last(known) == last(name) { 0 } else { *distance }
        },
    )?;
    (best.0 <= within || last(&best.1) == last(name)).then_some(best.1)
}

/// How many letters have to be changed, added or left out.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<_> = to.chars().collect();
    let mut row: Vec<_> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[to.len()]
}

/// Where each setting came from; the later layer wins.
pub(super) fn origins(settings: &[Setting]) -> BTreeMap<KeyPath, Origin> {
    settings
        .iter()
        .map(|setting| (setting.path.clone(), setting.origin.clone()))
        .collect()
}
