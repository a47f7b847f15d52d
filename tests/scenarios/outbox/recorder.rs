//! A broker that acknowledges at once and writes down the order.

use std::sync::{Arc, Mutex, PoisonError};

use outbox_publisher::domain::topic::{Lane, TopicFacts};
use outbox_publisher::driver::Observer;
use outbox_publisher::ports::{Broker, BrokerFact, Outgoing};
use outbox_publisher::relay::Relay;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use uuid::Uuid;

/// What was published, and what the sweep had to find.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    sent: Arc<Mutex<Vec<Uuid>>>,
    swept: Arc<Mutex<u64>>,
}

impl Record {
    /// Event ids in the order of their acknowledgement.
    pub(crate) fn sent(&self) -> Vec<Uuid> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Rows that only the sweep found.
    pub(crate) fn swept(&self) -> u64 {
        *self.swept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The broker's side of a [`Record`].
pub(crate) struct Recorder {
    record: Record,
    facts: UnboundedSender<BrokerFact>,
}

impl Recorder {
    /// A broker, and what it tells.
    pub(crate) fn new(record: Record) -> (Self, UnboundedReceiver<BrokerFact>) {
        let (facts, told) = unbounded_channel();
        (Self { record, facts }, told)
    }

    fn tell(&self, fact: BrokerFact) {
        // A driver that has ended listens no more.
        let _ = self.facts.send(fact);
    }
}

impl Broker for Recorder {
    fn send(&self, lane: Lane, generation: u64, rows: Vec<Outgoing>) {
        let ids = rows.iter().map(|row| row.event.event_id);
        self.record
            .sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(ids);
        let reports = rows.iter().map(|row| (row.token, Ok(()))).collect();
        self.tell(BrokerFact::Reports {
            lane,
            generation,
            reports,
        });
    }

    fn rebuild(&self, lane: Lane, generation: u64) {
        let generation = generation + 1;
        self.tell(BrokerFact::Rebuilt { lane, generation });
    }

    fn ask_topic(&self, number: usize, _: String) {
        let facts = Ok(TopicFacts {
            partitions: 1,
            record_bytes_max: Some(1 << 20),
        });
        self.tell(BrokerFact::Topic { number, facts });
    }
}

/// Keeps the count of swept rows.
pub(crate) struct Sweeps(pub(crate) Record);

impl Observer for Sweeps {
    fn turn(&mut self, relay: &mut Relay, _: Duration) {
        let swept = relay.take_tally().swept;
        *self.0.swept.lock().unwrap_or_else(PoisonError::into_inner) += swept;
    }

    fn store(&mut self, _: Result<(), &str>) {}

    fn broker(&mut self, _: Result<(), &str>) {}
}
