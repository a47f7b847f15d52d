//! A certificate authority of our own, and a certificate of 127.0.0.1 that it has signed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};

use crate::folders;

/// PEM files, in a folder that goes with this process.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority, for clients.
    pub authority: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// The server's key, readable by its owner only.
    pub key: PathBuf,
    /// Key and certificates in one file, as Kafka wants them.
    pub bundle: PathBuf,
}

impl Certificates {
    /// Makes an authority and has it sign a certificate, by `openssl`.
    pub async fn make(name: &str) -> anyhow::Result<Self> {
        let folder = folders::data(name)?;
        let file = |name: &str| folder.join(name);
        let made = Self {
            authority: file("authority.pem"),
            certificate: file("server.pem"),
            key: file("server-key.pem"),
            bundle: file("bundle.pem"),
        };
        let authority = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority \
                         -keyout authority-key.pem -out authority.pem";
        openssl(&folder, authority).await?;
        let server = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 \
                      -addext subjectAltName=IP:127.0.0.1,DNS:localhost -addext basicConstraints=critical,CA:FALSE \
                      -CA authority.pem -CAkey authority-key.pem -keyout server-key.pem -out server.pem";
        openssl(&folder, server).await?;
        let parts = [&made.key, &made.certificate, &made.authority].map(fs::read_to_string);
        let parts = parts
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .context("read what openssl made")?;
        fs::write(&made.bundle, parts.concat())?;
        fs::set_permissions(&made.key, fs::Permissions::from_mode(0o600))?;
        Ok(made)
    }
}

async fn openssl(folder: &Path, arguments: &str) -> anyhow::Result<()> {
    let mut command = tokio::process::Command::new("openssl");
    command.current_dir(folder).args(arguments.split_whitespace());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command
        .output()
        .await
        .context("run openssl, which makes the certificates")?;
    ensure!(
        output.status.success(),
        "openssl {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
