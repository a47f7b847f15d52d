//! A database, topics and a consumer group of one run, and the services that work on them.

use harness::{Audit, Database, Service, Stack, StackKind, Triage, topics};

/// Partitions of each topic.
pub(crate) const PARTITIONS: i32 = 12;
/// How long a lease lasts here, in milliseconds; 10 s by default. Shorter, so that people need not wait.
pub(crate) const LEASE_MS: u64 = 3_000;
/// After how long the group gives a silent member up, in milliseconds; the least that brokers allow.
pub(crate) const SESSION_MS: u64 = 6_000;

/// Where one run takes place.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    /// Addresses of the brokers.
    pub(crate) brokers: String,
    /// A database of its own; the services bring up its schema.
    pub(crate) database: Database,
    /// Where support messages go.
    pub(crate) input: String,
    /// Where outcomes come out.
    pub(crate) output: String,
    /// Where records come out that nobody can decide.
    pub(crate) dead_letter: String,
    kind: StackKind,
}

impl Scene {
    /// Makes the database and the topics.
    pub(crate) async fn new(stack: &Stack, label: &str) -> anyhow::Result<Self> {
        let topic = |part: &str, settings: &'static [(&str, &str)]| {
            let name = format!("{label}-{part}");
            async move { stack.topic(&name, PARTITIONS, settings).await }
        };
        Ok(Self {
            brokers: stack.brokers(),
            database: stack.empty_database(label).await?,
            input: topic("input", &[]).await?,
            output: topic("output", &[]).await?,
            dead_letter: topic("dead-letter", &[("max.message.bytes", "1114124")]).await?,
            kind: stack.choice().kind,
        })
    }

    /// A `triage-service` that works here.
    pub(crate) fn triage(&self, name: &str) -> Service {
        let service = Service::triage(name)
            .set("KAFKA__BROKERS", &self.brokers)
            .set("KAFKA__GROUP", self.group())
            .set("KAFKA__PROPERTIES__SESSION_TIMEOUT_MS", SESSION_MS)
            .set("DATABASE__URL", &self.database.url)
            .set("TOPICS__INPUT", &self.input)
            .set("TOPICS__OUTPUT", &self.output)
            .set("TOPICS__DEAD_LETTER", &self.dead_letter);
        match self.kind {
            // The mock cluster lets an empty fetch wait to its end even when a record arrives meanwhile.
            StackKind::Embedded => service.set("KAFKA__PROPERTIES__FETCH_WAIT_MAX_MS", 10),
            StackKind::Kafka | StackKind::Containers | StackKind::Env => service,
        }
    }

    /// An `outbox-publisher` that works here.
    pub(crate) fn publisher(&self, name: &str) -> Service {
        Service::publisher(name)
            .set("KAFKA__BROKERS", &self.brokers)
            .set("DATABASE__URL", &self.database.url)
            .set("LEASE__DURATION_MS", LEASE_MS)
            .set("LEASE__RENEW_MS", LEASE_MS / 6)
    }

    /// The consumer group of the triage instances; its claims have the same name.
    pub(crate) fn group(&self) -> &'static str {
        "demo"
    }

    /// The judge of what happened here.
    pub(crate) fn audit(&self) -> Audit {
        Audit::new(&self.brokers, &self.database).triage(Triage {
            consumer: self.group().to_owned(),
            group: self.group().to_owned(),
            inputs: vec![self.input.clone()],
            output: self.output.clone(),
            dead_letter: self.dead_letter.clone(),
        })
    }

    /// Whether every record of the input is behind the group.
    pub(crate) async fn is_consumed(&self) -> anyhow::Result<bool> {
        let committed = topics::committed(&self.brokers, self.group(), &self.input).await?;
        Ok(committed.iter().all(topics::Committed::is_at_end))
    }

    /// Leaves nothing behind on servers that outlive us.
    pub(crate) async fn clean_up(&self, stack: &Stack) -> anyhow::Result<()> {
        if self.kind != StackKind::Env {
            return Ok(());
        }
        for topic in [&self.input, &self.output, &self.dead_letter] {
            topics::delete(&self.brokers, topic).await?;
        }
        stack.drop_database(&self.database).await
    }
}
