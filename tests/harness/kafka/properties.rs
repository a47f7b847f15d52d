//! What a broker is told, wherever it lives.

use super::KafkaOptions;

/// Where a broker listens and what it tells others of that.
#[derive(Debug)]
pub(super) struct Listeners {
    /// Name, the address it binds, and the one it tells others; a controller tells none.
    pub(super) all: Vec<(String, String, Option<String>)>,
    /// By which brokers reach each other.
    pub(super) between_brokers: &'static str,
}

/// Names and values of server.properties.
pub(super) fn of(
    id: usize,
    voters: &str,
    listeners: &Listeners,
    log_folder: &str,
    options: &KafkaOptions,
) -> Vec<(String, String)> {
    let replicas = options.nodes;
    let majority = replicas / 2 + 1;
    let bound = listeners.all.iter().map(|(name, bound, _)| format!("{name}://{bound}"));
    let told = listeners
        .all
        .iter()
        .filter_map(|(name, _, told)| Some(format!("{name}://{}", told.as_deref()?)));
    let protocols = listeners.all.iter().map(|(name, ..)| format!("{name}:PLAINTEXT"));
    let ours = [
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", id.to_string()),
        ("controller.quorum.voters", voters.to_owned()),
        ("listeners", bound.collect::<Vec<_>>().join(",")),
        ("advertised.listeners", told.collect::<Vec<_>>().join(",")),
        (
            "listener.security.protocol.map",
            protocols.collect::<Vec<_>>().join(","),
        ),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        ("inter.broker.listener.name", listeners.between_brokers.to_owned()),
        ("log.dirs", log_folder.to_owned()),
        ("num.network.threads", "2".to_owned()),
        ("offsets.topic.replication.factor", replicas.to_string()),
        ("offsets.topic.num.partitions", "5".to_owned()),
        ("transaction.state.log.replication.factor", replicas.to_string()),
        ("transaction.state.log.min.isr", majority.to_string()),
        ("transaction.state.log.num.partitions", "3".to_owned()),
        ("share.coordinator.state.topic.replication.factor", replicas.to_string()),
        ("share.coordinator.state.topic.min.isr", majority.to_string()),
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
        ("auto.create.topics.enable", "false".to_owned()),
        // On a busy machine a broker may have no processor for Kafka's 9 s. Its controller then has no broker at
        // all, refuses topics ("Invalid replication factor") and takes the leaders from those there are.
        ("broker.session.timeout.ms", "30000".to_owned()),
        ("broker.heartbeat.interval.ms", "500".to_owned()),
    ];
    // The last mention of a name would win silently; ours give way instead.
    let ours = ours
        .into_iter()
        .filter(|(name, _)| !options.properties.iter().any(|(other, _)| other == name));
    ours.map(|(name, value)| (name.to_owned(), value))
        .chain(options.properties.iter().cloned())
        .collect()
}
