//! A broker as a container of the official image.

use std::time::Duration;

use testcontainers::core::{IntoContainerPort, Mount};
use testcontainers::{ContainerRequest, ImageExt};
use testcontainers_modules::kafka::apache;

use super::KafkaOptions;
use super::node::Seat;
use super::properties::{self, Listeners};
use crate::docker::{Container, Made, files_named, images};

/// Inside the container; the module waits for what listens here.
const PORT: u16 = 9092;
const BETWEEN_BROKERS: u16 = 9093;
const CONTROLLER: u16 = 9094;
/// Of the first route; the others follow.
const ROUTES: u16 = 9100;
/// A volume of the image.
const LOG_FOLDER: &str = "/var/lib/kafka/data";
/// How long an orderly stop may take: the node hands its partitions over first.
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// A broker's container and the volume with its data.
#[derive(Debug)]
pub(super) struct InContainer {
    container: Container,
    /// Behind the container, so that it is removed after it.
    _volume: Made,
}

impl InContainer {
    pub(super) fn name_for(seat: &Seat) -> String {
        Container::name_for(&seat.name)
    }

    /// Starts the broker of this seat; `names` are those of all brokers, `network` is where they meet.
    pub(super) async fn start_new(
        seat: &Seat,
        names: &[String],
        network: Option<&str>,
        options: &KafkaOptions,
    ) -> anyhow::Result<Self> {
        let host = |name: &str| match network {
            Some(_) => name.to_owned(),
            None => "localhost".to_owned(),
        };
        let voters = names.iter().zip(1..);
        let voters = voters.map(|(name, id)| format!("{id}@{}:{CONTROLLER}", host(name)));
        let voters = voters.collect::<Vec<_>>().join(",");
        let name = &names[seat.id - 1];
        let listeners = listeners(seat, &host(name));
        let properties = properties::of(seat.id, &voters, &listeners, LOG_FOLDER, options);
        let volume = Made::volume(&seat.name).await?;
        let request = {
            let (seat, options, network) = (seat.clone(), options.clone(), network.map(str::to_owned));
            let mount = Mount::volume_mount(volume.name(), LOG_FOLDER);
            move || {
                let request = request(&seat, &properties, &options).with_mount(mount.clone());
                match &network {
                    Some(network) => request.with_network(network),
                    None => request,
                }
            }
        };
        Ok(Self {
            container: Container::start_new(name, request).await?,
            _volume: volume,
        })
    }

    /// Where the brokers, and other containers on their network, reach it.
    pub(super) fn private_address(&self) -> String {
        format!("{}:{BETWEEN_BROKERS}", self.container.name())
    }

    pub(super) fn container(&self) -> &Container {
        &self.container
    }

    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        self.container.end_by("TERM", STOP_WITHIN).await.map(|_| ())
    }

    pub(super) async fn ended(&self) -> anyhow::Result<Option<String>> {
        Ok(self.container.ended().await?.map(|end| end.to_string()))
    }
}

fn request(seat: &Seat, properties: &[(String, String)], options: &KafkaOptions) -> ContainerRequest<apache::Kafka> {
    let mut request = apache::Kafka::default()
        .with_jvm_image()
        .with_tag(images::KAFKA_TAG)
        // The module's own command advertises the published port and nothing else: no routes, no
        // other broker. The ports are known beforehand here, so the image's own start does.
        .with_cmd(["-c", "exec /etc/kafka/docker/run"])
        .with_env_var("CLUSTER_ID", &seat.cluster)
        .with_env_var("KAFKA_BROKER_ID", seat.id.to_string())
        .with_mapped_port(seat.port, PORT.tcp());
    for (number, hop) in seat.detours.iter().enumerate() {
        request = request.with_mapped_port(hop.upstream, route_port(number).tcp());
    }
    for file in files_named(options.properties.iter().map(|(_, value)| value.as_str())) {
        request = request.with_mount(Mount::bind_mount(file, file));
    }
    for (name, value) in properties {
        request = request.with_env_var(variable(name), value);
    }
    for_this_machine(request, options)
}

/// As the broker from the jars is started: small and quick to start, unless it shall be fast.
fn for_this_machine(
    request: ContainerRequest<apache::Kafka>,
    options: &KafkaOptions,
) -> ContainerRequest<apache::Kafka> {
    let (heap, jvm) = if options.for_speed {
        ("-Xms512m -Xmx1g", "-XX:+UseSerialGC")
    } else {
        ("-Xms256m -Xmx768m", "-XX:+UseSerialGC -XX:TieredStopAtLevel=1")
    };
    request
        .with_env_var("KAFKA_HEAP_OPTS", heap)
        .with_env_var("KAFKA_JVM_PERFORMANCE_OPTS", jvm)
}

fn listeners(seat: &Seat, host: &str) -> Listeners {
    let everywhere = |port: u16| format!("0.0.0.0:{port}");
    let here = |port: u16| Some(format!("127.0.0.1:{port}"));
    let mut all = vec![
        ("PLAINTEXT".to_owned(), everywhere(PORT), here(seat.port)),
        (
            "BROKER".to_owned(),
            everywhere(BETWEEN_BROKERS),
            Some(format!("{host}:{BETWEEN_BROKERS}")),
        ),
        ("CONTROLLER".to_owned(), everywhere(CONTROLLER), None),
    ];
    for (number, hop) in seat.detours.iter().enumerate() {
        all.push((format!("VIA{number}"), everywhere(route_port(number)), here(hop.listen)));
    }
    Listeners {
        all,
        between_brokers: "BROKER",
    }
}

fn route_port(number: usize) -> u16 {
    ROUTES + u16::try_from(number).expect("a few routes")
}

/// The image turns variables into properties: one underscore is a dot, two are one, three are a dash.
fn variable(property: &str) -> String {
    let name = property.replace('_', "__").replace('-', "___").replace('.', "_");
    format!("KAFKA_{}", name.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::variable;

    #[test]
    fn a_property_is_named_as_the_image_reads_it() {
        assert_eq!(variable("log.dirs"), "KAFKA_LOG_DIRS");
        assert_eq!(
            variable("listener.name.via0.sasl.enabled.mechanisms"),
            "KAFKA_LISTENER_NAME_VIA0_SASL_ENABLED_MECHANISMS"
        );
        assert_eq!(variable("a_b-c"), "KAFKA_A__B___C");
    }
}
