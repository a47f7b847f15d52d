//! A small disk of our own for the tables, which may be full for a while.
//!
//! It is a tmpfs with a tablespace on it. The log and everything else of the server stay where they are, so that a
//! full disk refuses statements and ends nobody but them; a full disk under the log would end the server, which is
//! the fault of a killed one once more.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use harness::postgres::{self, Postgres};
use harness::{Database, folders, sweeper};
use sqlx::{AssertSqlSafe, Connection};

/// Room for the tables of a run of several hundred faults; only what is written takes memory.
const BYTES: u64 = 2 << 30;

/// A mounted disk; it is gone with us, however we end.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
}

/// Takes every free byte until it is dropped.
#[derive(Debug)]
pub(crate) struct Filled(PathBuf);

impl Drop for Filled {
    fn drop(&mut self) {
        // If it stays, nothing comes out any more, and the probes say so.
        let _ = fs::remove_file(&self.0);
    }
}

impl Disk {
    /// Why this machine cannot have one, or `None` if it can.
    pub(crate) fn lacks(postgres: &Postgres) -> Option<String> {
        if postgres.container().is_some() {
            return Some("the server's disk is that of its container's engine".to_owned());
        }
        let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
        (!is_root).then(|| "only root can mount a disk that may be full".to_owned())
    }

    /// Mounts a disk and moves the database onto it; nobody may be connected to that.
    pub(crate) async fn under(database: &Database, postgres: &Postgres) -> anyhow::Result<Self> {
        let folder = folders::data("chaos-disk")?;
        mount(&folder)?;
        let tables = folder.join("tables");
        fs::create_dir(&tables).context("make the tablespace's folder")?;
        postgres::give(&tables).await?;
        let mut admin = postgres::connect(&postgres.url("postgres")).await?;
        for statement in [
            format!("create tablespace small location '{}'", tables.display()),
            format!(r#"alter database "{}" set tablespace small"#, database.name),
        ] {
            sqlx::query(AssertSqlSafe(statement.clone()))
                .execute(&mut admin)
                .await
                .with_context(|| statement)?;
        }
        admin.close().await?;
        Ok(Self { folder })
    }

    /// Takes every byte that is left.
    pub(crate) fn fill(&self) -> anyhow::Result<Filled> {
        let filled = Filled(self.folder.join("filler"));
        let mut file = File::create(&filled.0).context("make the filler")?;
        let zeros = vec![0; 1 << 20];
        let mut chunk = zeros.as_slice();
        loop {
            match file.write(chunk) {
                Ok(_) => {}
                // What is left is less than a chunk.
                Err(error) if error.kind() == ErrorKind::StorageFull && chunk.len() > 4_096 => chunk = &zeros[..4_096],
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(filled),
                Err(error) => bail!("fill {}: {error}", self.folder.display()),
            }
        }
    }
}

fn mount(folder: &Path) -> anyhow::Result<()> {
    sweeper::at_our_end(r#"umount -l -- "$1""#, folder).context("start the sweeper of the disk")?;
    let options = format!("size={BYTES},mode=0755");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
        .arg(folder)
        .output()
        .context("run mount")?;
    let complaint = String::from_utf8_lossy(&mounted.stderr);
    ensure!(mounted.status.success(), "mount a disk: {}", complaint.trim());
    Ok(())
}
