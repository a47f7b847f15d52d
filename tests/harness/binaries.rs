//! Our binaries, built as they ship.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use tokio::sync::OnceCell;

use crate::folders;

/// The folder with the binaries, built once per run, so that no test runs an older one.
pub(crate) async fn build() -> anyhow::Result<PathBuf> {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    let folder = BUILT.get_or_try_init(|| async {
        let target = folders::target()?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = tokio::process::Command::new(cargo);
        // What cargo says of the test's own package. A build script that asks for these (ring's does) would run
        // again, and everything above it would be built anew.
        for (name, _) in std::env::vars_os() {
            let is_ours = |prefix| name.to_str().is_some_and(|name| name.starts_with(prefix));
            if is_ours("CARGO_PKG_") || is_ours("CARGO_MANIFEST_") {
                build.env_remove(&name);
            }
        }
        let built = build
            .current_dir(folders::workspace())
            .args([
                "build",
                "--quiet",
                "--release",
                "-p",
                "triage-service",
                "-p",
                "outbox-publisher",
                "-p",
                "cli",
                "--target-dir",
            ])
            .arg(&target)
            .status()
            .await;
        let folder = target.join("release");
        match built {
            Ok(status) => ensure!(status.success(), "building the services ended with {status}"),
            // A machine that only runs what was built elsewhere.
            Err(error) if folder.join("triage-service").exists() => {
                eprintln!("the services are not built anew, since cargo cannot be run: {error}");
            }
            Err(error) => return Err(error).context("run cargo to build the services"),
        }
        Ok(folder)
    });
    folder.await.cloned()
}
