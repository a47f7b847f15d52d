//! Our own images: which they are, and that they are of the sources at hand.

use std::process::Stdio;

use anyhow::{Context, ensure};
use harness::Service;
use harness::docker::docker;
use harness::docker::images::Image;
use harness::folders;
use tokio::sync::OnceCell;

/// Name and tag of a service's image.
pub(crate) async fn of(service: &Service) -> anyhow::Result<(String, String)> {
    static CHECKED: OnceCell<()> = OnceCell::const_new();
    CHECKED
        .get_or_try_init(|| async {
            for binary in ["triage-service", "outbox-publisher"] {
                check(binary).await?;
            }
            anyhow::Ok(())
        })
        .await?;
    Ok((format!("claimfirst/{}", service.binary()), tag()))
}

fn tag() -> String {
    std::env::var("CLAIMFIRST_TAG").unwrap_or_else(|_| "dev".to_owned())
}

/// Says which image it is. One of other sources would prove nothing.
async fn check(binary: &str) -> anyhow::Result<()> {
    let name = format!("claimfirst/{binary}:{}", tag());
    let image = Image::find(&name).await.context("`make images` makes our images")?;
    let label = r#"{{index .Config.Labels "claimfirst.sources"}}"#;
    let made_of = docker(&["image", "inspect", "--format", label, &name]).await?;
    let mut sources = tokio::process::Command::new(folders::workspace().join("docker/sources"));
    let sources = sources.arg(binary).stdin(Stdio::null()).output().await?;
    ensure!(
        sources.status.success(),
        "docker/sources {binary}: {}",
        String::from_utf8_lossy(&sources.stderr)
    );
    let at_hand = String::from_utf8(sources.stdout)?;
    ensure!(
        made_of == at_hand.trim(),
        "{image} was made of other sources than those here: `make images` makes it anew"
    );
    let base = if image.is_stand_in {
        ", on a stand-in for its base"
    } else {
        ""
    };
    eprintln!("image {image}{base}");
    Ok(())
}
