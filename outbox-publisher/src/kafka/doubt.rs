//! Whether a broker can be reached, as far as that is not known, and what stands in the way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use tokio::sync::mpsc::UnboundedSender;

use crate::ports::BrokerFact;

/// Pause between attempts to reach a broker again, and between looks whether any is needed.
const REACH_PAUSE: Duration = Duration::from_millis(500);

/// What the producers of one instance know of it together.
#[derive(Debug)]
pub(super) struct Doubt {
    is_raised: AtomicBool,
    /// What the clients last said of a broker. "All brokers are down" alone does not tell a wrong password
    /// from a wrong address.
    heard: Mutex<Option<String>>,
}

impl Doubt {
    /// Before the first answer it is not known.
    pub(super) fn new() -> Self {
        Self {
            is_raised: AtomicBool::new(true),
            heard: Mutex::new(None),
        }
    }

    /// Lets [`reach`] find out.
    pub(super) fn raise(&self) {
        self.is_raised.store(true, Ordering::SeqCst);
    }

    /// Keeps what a client said of a broker.
    pub(super) fn hear(&self, reason: &str) {
        *self.heard.lock().expect("no holder panics") = Some(reason.to_owned());
    }

    /// What is known of the trouble, for people.
    pub(super) fn explain(&self, trouble: &str) -> String {
        match &*self.heard.lock().expect("no holder panics") {
            Some(heard) => format!("{trouble}; the client last said: {heard}"),
            None => trouble.to_owned(),
        }
    }

    fn end(&self) {
        *self.heard.lock().expect("no holder panics") = None;
    }
}

/// Says when a broker has answered, as long as that is in doubt: an idle publisher has no acknowledgements.
/// It goes on as long as there are `producers`; `ask` lets one of them ask a broker, and its wait is bounded.
pub(super) fn reach<P>(
    producers: &Weak<P>,
    ask: impl Fn(Arc<P>) -> KafkaResult<()>,
    doubt: &Doubt,
    facts: &UnboundedSender<BrokerFact>,
) {
    while let Some(producers) = producers.upgrade() {
        if doubt.is_raised.swap(false, Ordering::SeqCst) {
            match ask(producers) {
                Ok(()) if doubt.is_raised.load(Ordering::SeqCst) => {} // lost again meanwhile
                Ok(()) => {
                    doubt.end();
                    let _ = facts.send(BrokerFact::Reached);
                }
                Err(error) => {
                    doubt.raise();
                    let _ = facts.send(BrokerFact::Unreachable(
                        doubt.explain(&format!("no broker of Kafka answers: {error}")),
                    ));
                }
            }
        }
        std::thread::sleep(REACH_PAUSE);
    }
}

/// Whether a broker was found and did not let us in, or none could be found: waiting mends neither.
pub(super) fn is_refused(code: Option<RDKafkaErrorCode>) -> bool {
    matches!(
        code,
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL | RDKafkaErrorCode::Resolve)
    )
}
