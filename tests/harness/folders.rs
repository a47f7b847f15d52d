//! Where logs stay and where data goes.
//!
//! Logs lie under `target/harness/<process id>` until ten later runs have pushed them out, so that a
//! failure can be read. Data of the servers lies in the system's temporary folder and is removed when
//! the process ends, however it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Context;

use crate::sweeper;

/// Log folders of earlier runs that are kept.
const RUNS_KEPT: usize = 10;

/// Removes a folder in several tries, since a dying server may still write.
const REMOVE: &str = r#"for try in 1 2 3 4 5; do rm -rf -- "$1" && exit; sleep 1; done"#;

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The build folder that this binary lies in, which is where our services lie too.
pub fn target() -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe().context("find the running binary")?;
    // target/release/demo, or target/release/deps/scenarios-0123456789abcdef
    let mut folder = exe.parent().context("the running binary lies in a folder")?;
    if folder.ends_with("deps") {
        folder = folder.parent().context("deps lies in a profile's folder")?;
    }
    Ok(folder
        .parent()
        .context("a profile's folder lies in the target folder")?
        .to_owned())
}

/// This run's log folder.
pub fn logs() -> anyhow::Result<PathBuf> {
    static LOGS: OnceLock<PathBuf> = OnceLock::new();
    if let Some(folder) = LOGS.get() {
        return Ok(folder.clone());
    }
    let runs = target()?.join("harness");
    let folder = runs.join(std::process::id().to_string());
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    forget_old_runs(&runs, &folder);
    Ok(LOGS.get_or_init(|| folder).clone())
}

/// Where servers have their data: in `CLAIMFIRST_DATA`, for machines whose temporary folder is small, or there.
pub fn data_root() -> PathBuf {
    std::env::var_os("CLAIMFIRST_DATA").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// A new, empty folder for a server's data that anybody may enter, since Postgres runs as another user.
pub fn data(name: &str) -> anyhow::Result<PathBuf> {
    let root = data_root();
    let folder = tempfile::Builder::new()
        .prefix(&format!("claimfirst-{name}-"))
        .tempdir_in(&root)
        .with_context(|| format!("make a data folder in {}", root.display()))?
        .keep();
    sweeper::at_our_end(REMOVE, &folder).context("start the sweeper of the data folder")?;
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

fn forget_old_runs(runs: &Path, ours: &Path) {
    let Ok(entries) = fs::read_dir(runs) else {
        return;
    };
    let mut others: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.path() != ours && !is_alive(&entry.file_name().to_string_lossy()))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    others.sort();
    for (_, folder) in others.iter().rev().skip(RUNS_KEPT) {
        // Another run may be removing the same folder.
        let _ = fs::remove_dir_all(folder);
    }
}

fn is_alive(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}
