//! The changes, as list.toml says them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use figment::Figment;
use figment::providers::{Format, Toml};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutant: Vec<Mutant>,
}

/// A change that breaks a guarantee, and the test that finds it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutant {
    /// What it does, in one word; it is what the switch is called.
    pub(crate) name: String,
    /// The guarantee, and what becomes of it.
    pub(crate) breaks: String,
    #[serde(flatten)]
    pub(crate) edit: Edit,
    /// Where one line is not enough.
    pub(crate) also: Option<Edit>,
    /// Package, test target (`lib` for unit tests), name.
    pub(crate) test: [String; 3],
    /// A piece of what the test says when it fails: another failure is no kill.
    pub(crate) says: String,
    #[serde(default)]
    pub(crate) needs: Needs,
    /// Where it stands in the list.
    #[serde(skip)]
    pub(crate) place: usize,
}

/// A piece of a file, and what stands in its place.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Edit {
    pub(crate) file: PathBuf,
    /// The statement that is changed, as the file includes it.
    pub(crate) sql: Option<String>,
    pub(crate) old: String,
    pub(crate) new: String,
}

/// What a test needs beside itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Needs {
    #[default]
    Nothing,
    /// A Postgres.
    Postgres,
    /// Postgres, Kafka, and our binaries.
    Services,
    /// The same, and to break the servers.
    OwnServers,
}

impl Mutant {
    pub(crate) fn edits(&self) -> impl Iterator<Item = &Edit> {
        [Some(&self.edit), self.also.as_ref()].into_iter().flatten()
    }

    pub(crate) fn needs_servers(&self) -> bool {
        matches!(self.needs, Needs::Postgres | Needs::Services)
    }

    pub(crate) fn needs_services(&self) -> bool {
        matches!(self.needs, Needs::Services | Needs::OwnServers)
    }
}

/// All mutants of the file.
pub(crate) fn read(file: &Path) -> anyhow::Result<Vec<Mutant>> {
    let List { mutant: mut all } = Figment::from(Toml::file_exact(file)).extract()?;
    let mut names = BTreeSet::new();
    for (place, mutant) in all.iter_mut().enumerate() {
        mutant.place = place;
        ensure!(
            names.insert(mutant.name.clone()),
            "two mutants are called {}",
            mutant.name
        );
        ensure!(
            !mutant.says.is_empty(),
            "mutant {}: `says` is empty, and any failure would be a kill",
            mutant.name
        );
    }
    Ok(all)
}
