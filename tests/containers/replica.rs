//! One instance of a service, in a container of our image.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::docker::{Container, End};
use harness::process::{get, sum_of};
use harness::wait::{self, Seen};
use harness::{Service, ports};
use testcontainers::core::IntoContainerPort;
use testcontainers::{GenericImage, ImageExt};

use crate::images;

/// Where the services listen in their containers.
const HTTP: u16 = 8080;
/// How long a service may take to be ready, to take over, to drain; on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// A service that was started. Its container is removed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Replica {
    container: Container,
    http: SocketAddr,
}

impl Replica {
    /// Starts a container with the service's settings and waits until it is ready.
    ///
    /// It may write nowhere and has no rights, as it should be deployed.
    pub(crate) async fn start(name: &str, service: &Service, network: &str) -> anyhow::Result<Self> {
        let (image, tag) = images::of(service).await?;
        let (environment, network) = (service.environment().clone(), network.to_owned());
        let port = ports::free()?;
        let request = move || {
            let mut request = GenericImage::new(&image, &tag)
                .with_network(&network)
                .with_mapped_port(port, HTTP.tcp())
                .with_readonly_rootfs(true)
                .with_cap_drop("ALL")
                .with_security_opt("no-new-privileges");
            for (name, value) in &environment {
                request = request.with_env_var(name, value);
            }
            request
        };
        let replica = Self {
            container: Container::start_new(&Container::name_for(name), request).await?,
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        };
        replica.ready().await?;
        Ok(replica)
    }

    /// Its container, to be broken.
    pub(crate) fn container(&self) -> &Container {
        &self.container
    }

    /// Waits until `/readyz` says yes.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        wait::until(&format!("{} to be ready", self.container.name()), SOON, || async {
            let answer = get(self.http, "/readyz").await?;
            Ok(match answer.status {
                200 => Seen::Yes(()),
                _ => Seen::NotYet(answer.body),
            })
        })
        .await
        .with_context(|| format!("its log is {}", self.container.log().display()))
    }

    /// Waits until it says with this word why it is not ready.
    pub(crate) async fn until_not_ready(&self, word: &str) -> anyhow::Result<()> {
        let what = format!("{} to say that it lacks {word}", self.container.name());
        wait::until(&what, SOON, || async {
            let answer = get(self.http, "/readyz").await?;
            let says = answer.status == 503 && answer.body.contains(word);
            Ok(Seen::when(answer.body, |_| says))
        })
        .await?;
        Ok(())
    }

    /// Waits until a metric, summed over its labels, is as it should be.
    pub(crate) async fn until_metric(&self, name: &str, holds: impl Fn(u64) -> bool) -> anyhow::Result<()> {
        let what = format!("{name} of {}", self.container.name());
        wait::until(&what, SOON, || async {
            let answer = get(self.http, "/metrics").await?;
            let value = sum_of(&answer.body, name).with_context(|| format!("{name} is not reported"))?;
            Ok(Seen::when(value as u64, |value| holds(*value)))
        })
        .await?;
        Ok(())
    }

    /// SIGTERM, upon which it must drain and end with 0.
    pub(crate) async fn drain(&self) -> anyhow::Result<()> {
        let end = self.container.end_by("TERM", SOON).await?;
        let drained = End {
            code: 0,
            out_of_memory: false,
        };
        ensure!(
            end == drained,
            "{} did not drain: {end}; its log is {}",
            self.container.name(),
            self.container.log().display()
        );
        Ok(())
    }
}
