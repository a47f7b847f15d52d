//! What containers need beside themselves: a network to know each other on, a volume that outlives one of them.

use std::process::{Command, Stdio};

use super::{docker, run};
use crate::stack::unique;

/// A network or a volume with the label of the run. Dropped after the containers that use it, it is removed.
#[derive(Debug)]
pub struct Made {
    kind: &'static str,
    name: String,
}

impl Made {
    /// A bridge network, on which containers know each other by name.
    pub async fn network(label: &str) -> anyhow::Result<Self> {
        Self::make("network", label).await
    }

    /// A volume; what an image has in its place is copied into it when it is first used.
    pub async fn volume(label: &str) -> anyhow::Result<Self> {
        Self::make("volume", label).await
    }

    async fn make(kind: &'static str, label: &str) -> anyhow::Result<Self> {
        run::begin().await?;
        let name = unique(label);
        docker(&[kind, "create", "--label", &run::label(), &name]).await?;
        Ok(Self { kind, name })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let mut remove = Command::new("docker");
        remove.args([self.kind, "rm", &self.name]);
        // What is left is removed by the sweeper.
        let _ = remove.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
