//! Which kind of stack: what `STACK` asks for, what this machine has, and what each kind can show.

use anyhow::bail;

use crate::docker;
use crate::kafka::Kafka;
use crate::postgres::Postgres;

/// The address settings of the `env` stack.
pub(super) const DATABASE_VARIABLE: &str = "CLAIMFIRST__DATABASE__URL";
pub(super) const BROKERS_VARIABLE: &str = "CLAIMFIRST__KAFKA__BROKERS";

/// A kind of stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StackKind {
    /// Addresses from the environment; nothing of it is ours to stop.
    Env,
    /// Private Postgres, and librdkafka's mock cluster in this process.
    Embedded,
    /// Private Postgres, and Apache Kafka from its jars.
    Kafka,
    /// Postgres and Apache Kafka, each in a container of its official image.
    Containers,
}

/// Where servers of our own live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// Processes of this machine, from local binaries and published jars.
    Processes,
    /// Containers of the official images.
    Containers,
}

impl Home {
    /// Where a test has a server of its own: in containers where the stack of this run is.
    pub fn from_environment() -> anyhow::Result<Self> {
        Ok(match Choice::from_environment()?.kind {
            StackKind::Containers => Self::Containers,
            StackKind::Env | StackKind::Embedded | StackKind::Kafka => Self::Processes,
        })
    }
}

impl StackKind {
    /// The name in `STACK` and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::Embedded => "embedded",
            Self::Kafka => "kafka",
            Self::Containers => "containers",
        }
    }

    /// Why a stack of this kind cannot show something, or `None` if it can.
    pub(super) fn lacks(self, ability: Ability) -> Option<&'static str> {
        match (self, ability) {
            (Self::Kafka | Self::Containers, _) | (Self::Embedded, Ability::DatabaseProcess) => None,
            (Self::Embedded, Ability::ProducerState) => {
                Some("the mock cluster keeps no producer state: it writes a resend twice")
            }
            (Self::Embedded, Ability::Transactions) => Some("the mock cluster only pretends transactions"),
            (Self::Embedded, Ability::Admin) => Some("the mock cluster has no admin protocol"),
            (Self::Embedded, Ability::BrokerProcess | Ability::BrokerRoutes) => {
                Some("the mock cluster lives in the test's own process")
            }
            (Self::Embedded, Ability::LongTopics) => Some("the mock cluster keeps 5 MiB of a partition"),
            (Self::Embedded, Ability::PromptFetch) => {
                Some("the mock cluster answers a fetch that found nothing after its longest wait")
            }
            (Self::Embedded, Ability::TimeIndex) => Some("the mock cluster finds no offset by its time"),
            (Self::Embedded, Ability::GivenOffsets) => {
                Some("the mock cluster takes a group's offsets from its members only")
            }
            (Self::Env, Ability::BrokerProcess | Ability::BrokerRoutes) => Some("the given brokers are not ours"),
            (Self::Env, Ability::DatabaseProcess) => Some("the given Postgres is not ours"),
            (
                Self::Env,
                Ability::ProducerState
                | Ability::Transactions
                | Ability::Admin
                | Ability::LongTopics
                | Ability::PromptFetch
                | Ability::TimeIndex
                | Ability::GivenOffsets,
            ) => None,
        }
    }
}

/// What a scenario may need that not every stack has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// The broker drops a resend of an idempotent producer and refuses a gap in its sequences.
    ProducerState,
    /// Transactions that mean something.
    Transactions,
    /// Topic settings, and the admin protocol at all.
    Admin,
    /// A broker that may be killed, frozen and restarted.
    BrokerProcess,
    /// More than 5 MiB in a partition.
    LongTopics,
    /// A fetch that is answered as soon as there is something.
    PromptFetch,
    /// Offsets by the time of their records.
    TimeIndex,
    /// Offsets of a group that are set while nobody is in it.
    GivenOffsets,
    /// A Postgres that may be killed, frozen and restarted.
    DatabaseProcess,
    /// Brokers that name a proxy's address to their clients.
    BrokerRoutes,
}

/// A stack kind with the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What was chosen.
    pub kind: StackKind,
    /// Why, for people.
    pub reason: String,
}

impl Choice {
    /// Why this stack cannot show something, or `None` if it can.
    pub fn lacks(&self, ability: Ability) -> Option<&'static str> {
        self.kind.lacks(ability)
    }

    /// Reads `STACK` and looks at what this machine has.
    pub fn from_environment() -> anyhow::Result<Self> {
        let wanted = std::env::var("STACK").unwrap_or_else(|_| "auto".to_owned());
        let has = Found {
            addresses: [DATABASE_VARIABLE, BROKERS_VARIABLE]
                .iter()
                .all(|name| std::env::var_os(name).is_some()),
            jars: Kafka::jars().is_dir(),
            binaries: Postgres::local_binaries().is_some(),
            engine: docker::is_there,
        };
        let choice = Self::choose(&wanted, &has)?;
        if choice.kind == StackKind::Containers && !docker::COMPILED_IN {
            return Err(docker::left_out());
        }
        Ok(choice)
    }

    fn choose(wanted: &str, has: &Found) -> anyhow::Result<Self> {
        let chosen = |kind, reason: &str| {
            Ok(Self {
                kind,
                reason: reason.to_owned(),
            })
        };
        match wanted {
            "env" if has.addresses => chosen(StackKind::Env, "STACK=env"),
            "env" => bail!("STACK=env needs {DATABASE_VARIABLE} and {BROKERS_VARIABLE}"),
            "embedded" => chosen(StackKind::Embedded, "STACK=embedded"),
            "kafka" => chosen(StackKind::Kafka, "STACK=kafka"),
            "containers" => chosen(StackKind::Containers, "STACK=containers"),
            "auto" | "" if has.addresses => chosen(StackKind::Env, "both addresses are set"),
            "auto" | "" if has.jars && has.binaries => chosen(
                StackKind::Kafka,
                "Kafka's jars are in .stack/kafka, Postgres' binaries on this machine",
            ),
            "auto" | "" if has.binaries => chosen(
                StackKind::Embedded,
                "Postgres' binaries are on this machine, Kafka's jars are not fetched (`.ci/install kafka`)",
            ),
            "auto" | "" if (has.engine)() => chosen(
                StackKind::Containers,
                "Docker answers, and Postgres' binaries are not on this machine",
            ),
            "auto" | "" => bail!(
                "neither addresses ({DATABASE_VARIABLE}, {BROKERS_VARIABLE}) nor a local Postgres nor Docker: \
                 `.ci/install` installs Postgres and fetches Kafka, `.ci/stand-ins` installs Docker"
            ),
            other => bail!("STACK={other} is none of auto, env, embedded, kafka, containers"),
        }
    }
}

/// What the choice depends on.
struct Found {
    addresses: bool,
    jars: bool,
    binaries: bool,
    /// Asked last, since it takes a while.
    engine: fn() -> bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(wanted: &str, [addresses, jars, binaries]: [bool; 3], engine: fn() -> bool) -> Result<StackKind, String> {
        Choice::choose(
            wanted,
            &Found {
                addresses,
                jars,
                binaries,
                engine,
            },
        )
        .map(|choice| choice.kind)
        .map_err(|error| error.to_string())
    }

    #[test]
    fn auto_takes_addresses_then_jars_then_the_mock_then_containers() {
        let unasked = || panic!("the engine is asked last");
        assert_eq!(choose("auto", [true, true, true], unasked), Ok(StackKind::Env));
        assert_eq!(choose("auto", [false, true, true], unasked), Ok(StackKind::Kafka));
        assert_eq!(choose("auto", [false, false, true], unasked), Ok(StackKind::Embedded));
        assert_eq!(choose("auto", [false, true, false], || true), Ok(StackKind::Containers));
        assert!(choose("auto", [false, false, false], || false).is_err_and(|text| text.contains(".ci/install")));
    }

    #[test]
    fn what_is_asked_for_is_taken_or_refused_with_its_reason() {
        let none = || false;
        assert_eq!(
            choose("containers", [true, true, true], none),
            Ok(StackKind::Containers)
        );
        assert!(choose("env", [false, true, true], none).is_err_and(|text| text.contains(BROKERS_VARIABLE)));
        assert!(choose("docker", [true, true, true], none).is_err_and(|text| text.contains("none of")));
    }
}
