//! Mistakes in the settings, collected so that one start shows them all.

use std::collections::BTreeMap;
use std::fmt;

use super::{KeyPath, Origin};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key at fault, as in the file: `kafka.brokers`.
    pub key: String,
    /// Where its value came from, where it came from somewhere.
    pub origin: Option<Origin>,
    /// What is wrong. Never holds a value that could be a secret.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// The mistakes found so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Notes that `key` breaks a rule.
    pub fn add(&mut self, key: impl Into<String>, reason: impl Into<String>) {
        self.push(key.into(), None, reason.into());
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mistakes in the order they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    pub(crate) fn push(&mut self, key: String, origin: Option<Origin>, reason: String) {
        self.0.push(Problem { key, origin, reason });
    }

    /// Takes over the broken rules, except about keys that could not even be read: there the rule saw
    /// the default, not what was meant.
    pub(crate) fn append_new(&mut self, rules: Self, origins: &BTreeMap<KeyPath, Origin>) {
        for mut problem in rules.0 {
            if self.0.iter().any(|known| known.key == problem.key) {
                continue;
            }
            let origin = origins.iter().find(|(path, _)| path.join(".") == problem.key);
            problem.origin = origin.map(|(_, origin)| origin.clone());
            self.0.push(problem);
        }
    }
}

/// Everything that is wrong with the settings. A process that meets it exits with code 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Problems);

impl ConfigErrors {
    pub(crate) const fn new(problems: Problems) -> Self {
        Self(problems)
    }

    /// The single mistakes.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is refused:")?;
        for problem in self.0.iter() {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
