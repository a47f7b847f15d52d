//! A server as a container of the official image.

use std::collections::BTreeMap;
use std::path::Path;

use testcontainers::core::{IntoContainerPort, Mount, WaitFor};
use testcontainers::{ContainerRequest, ImageExt};
use testcontainers_modules::postgres;

use super::{PORT_INSIDE, STOP_WITHIN, Stop};
use crate::docker::{Container, Made, docker, files_named, images, run};

/// What the server says once it is up.
const READY: &str = "database system is ready to accept connections";
/// A volume of the image.
const DATA_FOLDER: &str = "/var/lib/postgresql/data";
/// Of memory that sessions share; the engine's default of 64 MB is too little for a parallel plan.
const SHARED_BYTES: u64 = 256 * 1024 * 1024;

/// A server's container and the volume with its data.
#[derive(Debug)]
pub(super) struct InContainer {
    container: Container,
    /// Behind the container, so that it is removed after it.
    _volume: Made,
}

impl InContainer {
    pub(super) async fn start_new(
        network: Option<&str>,
        name: &str,
        port: u16,
        settings: BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let volume = Made::volume(name).await?;
        let request = {
            let network = network.map(str::to_owned);
            let mount = Mount::volume_mount(volume.name(), DATA_FOLDER);
            move || {
                let request = request(port, &settings).with_mount(mount.clone());
                match &network {
                    Some(network) => request.with_network(network),
                    None => request,
                }
            }
        };
        Ok(Self {
            container: Container::start_new(&Container::name_for(name), request).await?,
            _volume: volume,
        })
    }

    pub(super) fn container(&self) -> &Container {
        &self.container
    }

    pub(super) async fn ended(&self) -> anyhow::Result<Option<String>> {
        Ok(self.container.ended().await?.map(|end| end.to_string()))
    }

    pub(super) async fn stop(&self, how: Stop) -> anyhow::Result<()> {
        let signal = match how {
            Stop::Fast => "INT",
            Stop::Crash => "QUIT",
            Stop::Kill => "KILL",
        };
        self.container.end_by(signal, STOP_WITHIN).await?;
        Ok(())
    }

    /// The server is the first process of its container, and its sessions are children of that.
    pub(super) async fn freeze_process(&self, pid: u32) -> anyhow::Result<()> {
        let script = format!(
            r#"[ "$(sed 's/.*) . //; s/ .*//' /proc/{pid}/stat)" = 1 ] || {{ echo "{pid} is no process of this server" >&2; exit 1; }}
               kill -STOP {pid}"#
        );
        self.container.run(&script).await?;
        Ok(())
    }
}

fn request(port: u16, settings: &BTreeMap<String, String>) -> ContainerRequest<postgres::Postgres> {
    let arguments = settings
        .iter()
        .flat_map(|(key, value)| ["-c".to_owned(), format!("{key}={value}")]);
    let mut request = postgres::Postgres::default()
        .with_host_auth()
        .with_tag(images::POSTGRES_TAG)
        .with_env_var("POSTGRES_INITDB_ARGS", "--encoding=UTF8 --no-locale --no-sync")
        .with_cmd(arguments)
        // The module waits for the server that makes the database as well, which a full volume does without.
        .with_ready_conditions(vec![WaitFor::message_on_stderr(READY)])
        .with_shm_size(SHARED_BYTES)
        .with_mapped_port(port, PORT_INSIDE.tcp());
    for file in files_named(settings.values().map(String::as_str)) {
        request = request.with_mount(Mount::bind_mount(file, file));
    }
    request
}

/// Gives a file to the account of the image, which has a number of its own; the engine may do so where we may not.
pub(super) async fn give(file: &Path) -> anyhow::Result<()> {
    images::provide().await?;
    run::begin().await?;
    let file = file.display().to_string();
    let (label, mount) = (run::label(), format!("{file}:{file}"));
    let image = format!("postgres:{}", images::POSTGRES_TAG);
    let run = ["run", "--rm", "--label", &label, "--user", "0", "--entrypoint", "chown"];
    docker(&[&run[..], &["--volume", &mount, &image, "postgres:postgres", &file]].concat()).await?;
    Ok(())
}
