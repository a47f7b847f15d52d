//! What is measured.

pub mod publisher;

use anyhow::{Context, ensure};
use harness::{Database, Service};

use crate::site::Site;

/// Proves that what was just measured was done right: a round counts only then.
///
/// # Errors
/// If `claimfirst reconcile` finds anything, or cannot find out.
async fn reconcile(site: &Site, database: &Database, settings: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut tool = Service::tool("reconcile")
        .set("KAFKA__BROKERS", site.stack.brokers())
        .set("DATABASE__URL", &database.url);
    for (name, value) in settings {
        tool = tool.set(name, value);
    }
    let (code, printed, complained) = tool.run_with(&["reconcile"]).await?;
    let code = code.context("it was not killed")?;
    ensure!(code == 0, "what was measured is not right: {printed}{complained}");
    Ok(())
}
