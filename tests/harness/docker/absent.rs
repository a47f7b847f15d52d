//! What stands for containers where the harness was compiled without them: a type that has no values.

use std::path::Path;

/// No container.
#[derive(Debug)]
pub enum Container {}

impl Container {
    /// Its name.
    pub fn name(&self) -> &str {
        match *self {}
    }

    /// What it has said.
    pub fn log(&self) -> &Path {
        match *self {}
    }

    /// Makes a new one in its place.
    pub async fn renew(&self) -> anyhow::Result<()> {
        match *self {}
    }

    /// Starts it again.
    pub async fn start(&self) -> anyhow::Result<()> {
        match *self {}
    }

    /// SIGKILL to all that runs in it.
    pub async fn kill(&self) -> anyhow::Result<()> {
        match *self {}
    }

    /// It stands still with everything it holds.
    pub async fn pause(&self) -> anyhow::Result<()> {
        match *self {}
    }

    /// It goes on as if no time had passed.
    pub async fn unpause(&self) -> anyhow::Result<()> {
        match *self {}
    }
}
