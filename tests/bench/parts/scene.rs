//! Topics, a database and a triage service of one round.

use anyhow::Context;
use harness::feed::Writer;
use harness::input::{Ids, Inputs};
use harness::{Database, Service};

use crate::site::{PARTITIONS, Site};

/// The group of the triage service; its claims have the same name.
const GROUP: &str = "bench";
/// The same records in every round.
const SEED: u64 = 23;

/// What one round stands on.
pub(super) struct Scene {
    pub(super) database: Database,
    pub(super) input: String,
    pub(super) output: String,
    dead_letter: String,
}

impl Scene {
    pub(super) async fn new(site: &Site) -> anyhow::Result<Self> {
        Self::with_output(site, &[]).await
    }

    pub(super) async fn with_output(site: &Site, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Ok(Self {
            database: site.database("decided").await?,
            input: site.topic("input").await?,
            output: site.stack.topic("output", PARTITIONS, settings).await?,
            dead_letter: site.dead_letter_topic("dead-letter").await?,
        })
    }

    /// Events that are all decided: each id once.
    pub(super) async fn fill(&self, site: &Site, rows: u64, ids: Ids) -> anyhow::Result<()> {
        let writer = Writer::new(&site.stack.brokers(), &self.input)?;
        tokio::task::spawn_blocking(move || {
            let inputs = Inputs::clean(SEED, shared::clock::unix_millis()).with_ids(ids);
            inputs
                .take(rows as usize)
                .try_for_each(|input| writer.send(&input.record))?;
            writer.flush()
        })
        .await
        .context("filling the input topic panicked")?
    }

    pub(super) fn settings(&self) -> [(&'static str, &str); 4] {
        [
            ("KAFKA__GROUP", GROUP),
            ("TOPICS__INPUT", &self.input),
            ("TOPICS__OUTPUT", &self.output),
            ("TOPICS__DEAD_LETTER", &self.dead_letter),
        ]
    }

    pub(super) fn triage(&self, site: &Site) -> Service {
        self.triage_named("triage", site)
    }

    pub(super) fn triage_named(&self, name: &str, site: &Site) -> Service {
        let service = site.triage(name, &self.database);
        self.settings()
            .into_iter()
            .fold(service, |service, (name, value)| service.set(name, value))
    }

    /// The same service in a group that has read nothing yet: everything comes again.
    pub(super) fn triage_again(&self, site: &Site) -> Service {
        self.triage(site)
            .set("KAFKA__GROUP", "bench-again")
            .set("INTAKE__CONSUMER", GROUP)
    }

    pub(super) async fn remove(&self, site: &Site) -> anyhow::Result<()> {
        let topics = [&*self.input, &*self.output, &*self.dead_letter];
        site.remove(&self.database, &topics).await
    }
}
