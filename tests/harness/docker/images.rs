//! The images that the stack stands on, by pinned tags.

use anyhow::{Context, ensure};
use tokio::sync::OnceCell;

use super::docker;
use crate::folders;

/// The tag of `postgres`.
pub const POSTGRES_TAG: &str = "15-bookworm";
/// The tag of `apache/kafka`.
pub const KAFKA_TAG: &str = "4.1.0";

/// Which image stands behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name and tag.
    pub name: String,
    /// Its id, `sha256:` and 64 digits.
    pub id: String,
    /// Made on this machine because no registry answers, or made from an image that was: it shows what the
    /// official one would as far as its interface goes, and not its speed, its size or its patch release.
    pub is_stand_in: bool,
}

impl Image {
    /// Looks an image up.
    pub async fn find(name: &str) -> anyhow::Result<Self> {
        let format = r#"{{.Id}} {{index .Config.Labels "claimfirst.stand-in"}}"#;
        let found = docker(&["image", "inspect", "--format", format, name]).await?;
        let (id, label) = found.split_once(' ').unwrap_or((&found, ""));
        Ok(Self {
            name: name.to_owned(),
            id: id.to_owned(),
            is_stand_in: label == "true",
        })
    }
}

impl std::fmt::Display for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = self.id.strip_prefix("sha256:").unwrap_or(&self.id);
        write!(f, "{} ({})", self.name, digits.get(..12).unwrap_or(digits))
    }
}

/// Makes sure, once per process, that the servers' images are there, and says which they are.
pub async fn provide() -> anyhow::Result<()> {
    static PROVIDED: OnceCell<()> = OnceCell::const_new();
    PROVIDED
        .get_or_try_init(|| async {
            stand_in().await?;
            for name in [format!("postgres:{POSTGRES_TAG}"), format!("apache/kafka:{KAFKA_TAG}")] {
                if Image::find(&name).await.is_err() {
                    docker(&["pull", "--quiet", &name]).await?;
                }
                let image = Image::find(&name).await?;
                let what = if image.is_stand_in {
                    ", a stand-in made on this machine, not the official image"
                } else {
                    ""
                };
                eprintln!("image {image}{what}");
            }
            anyhow::Ok(())
        })
        .await
        .copied()
}

/// Where no registry answers, images of the same names are made here; elsewhere this does nothing.
async fn stand_in() -> anyhow::Result<()> {
    let script = folders::workspace().join(".ci/stand-ins");
    let status = tokio::process::Command::new(&script)
        .args(["postgres", "kafka"])
        .stdin(std::process::Stdio::null())
        .status()
        .await
        .with_context(|| format!("run {}", script.display()))?;
    ensure!(
        status.success(),
        "`.ci/stand-ins` ended with {status}: there is no engine, or no image of Postgres and Kafka"
    );
    Ok(())
}
