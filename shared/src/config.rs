//! Settings: documented defaults, then a file, then the environment.
//!
//! The defaults are the list of known keys: what they do not name is refused, with the nearest known
//! name. All mistakes are reported at once, each with the place it came from. Secrets have types that
//! cannot print them.

mod describe;
mod layers;
mod problems;
mod secret;
mod sections;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use figment::value::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use problems::{ConfigErrors, Problem, Problems};
pub use secret::{DatabaseUrl, Properties, Secret};
pub use sections::{
    DatabaseSettings, HttpSettings, KafkaSettings, LogFormat, SaslMechanism, SaslSettings, TelemetrySettings,
    TlsSettings,
};

/// The settings of one binary.
///
/// A key exists when `Default` serialises it; `Option` fields that are skipped while absent do not.
pub trait Settings: Serialize + DeserializeOwned + Default {
    /// What its environment variables begin with, the two underscores included: `TRIAGE__`.
    const PREFIX: &'static str;

    /// Tables whose keys are not ours, so that unknown ones are legal. Their keys may hold dots.
    const OPEN_TABLES: &'static [&'static str] = &["kafka.properties"];

    /// Rules on and between settings. Called once, with everything that could be read.
    fn check(&self, problems: &mut Problems);
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The documented default.
    Default,
    /// The settings file.
    File(PathBuf),
    /// An environment variable, by name.
    Env(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "env {name}"),
        }
    }
}

/// The names from the outermost table to a value. The last may hold dots (`linger.ms`).
pub(crate) type KeyPath = Vec<String>;

/// Settings, and where each one came from.
#[derive(Debug)]
pub struct Loaded<S> {
    /// The settings as they take effect.
    pub settings: S,
    /// Keys that a file or the environment set; all others are defaults.
    pub origins: BTreeMap<Vec<String>, Origin>,
}

impl<S: Settings> Loaded<S> {
    /// Every key with its value and origin, one per line, secrets hidden.
    pub fn describe(&self) -> String {
        describe::describe(&self.settings, &self.origins)
    }
}

/// Reads the settings from `file`, where there is one, and from this process's environment.
pub fn load<S: Settings>(file: Option<&Path>) -> Result<Loaded<S>, ConfigErrors> {
    // A variable that is not text can be none of ours.
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    load_from(file, variables)
}

/// The same with a given environment.
pub fn load_from<S: Settings>(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded<S>, ConfigErrors> {
    let mut problems = Problems::default();
    let defaults = layers::defaults(&S::default());
    let known = layers::Known {
        defaults: &defaults,
        open: S::OPEN_TABLES,
        prefix: S::PREFIX,
    };

    let mut values = Vec::new();
    if let Some(path) = file {
        values.extend(known.file(path, &mut problems));
    }
    values.extend(known.environment(variables, &mut problems));

    let origins = layers::origins(&values);
    let settings: S = layers::extract(values, &mut problems);

    let mut rules = Problems::default();
    settings.check(&mut rules);
    problems.append_new(rules, &origins);
    if problems.is_empty() {
        Ok(Loaded { settings, origins })
    } else {
        Err(ConfigErrors::new(problems))
    }
}

/// One value of one layer.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) path: KeyPath,
    pub(crate) value: Value,
    /// As an environment variable had it.
    pub(crate) text: Option<String>,
    /// Why its typed form was refused, once that was tried.
    pub(crate) mistyped: Option<String>,
    pub(crate) origin: Origin,
}

#[cfg(test)]
mod tests;
