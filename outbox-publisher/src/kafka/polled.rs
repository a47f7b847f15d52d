//! A producer whose reports a thread of its own hands over.
//!
//! The library has one, too. It asks in steps of a tenth of a second, and spends the last millisecond of each step in a
//! busy loop, since it asks the client in whole milliseconds: 1 % of a core for a producer that does nothing.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, ProducerContext};

/// Longest wait for a report. What comes is handed over at once; this is how long the client outlives its last use.
const STEP: Duration = Duration::from_secs(2);

/// A producer and the thread that hands over its reports, which ends some time after this is dropped.
pub(super) struct Polled<C: ProducerContext + 'static> {
    producer: Arc<BaseProducer<C>>,
    is_over: Arc<AtomicBool>,
}

impl<C: ProducerContext + 'static> Polled<C> {
    pub(super) fn new(config: &ClientConfig, context: C) -> anyhow::Result<Self> {
        let producer: BaseProducer<C> = config.create_with_context(context).context("make a producer")?;
        let producer = Arc::new(producer);
        let is_over = Arc::new(AtomicBool::new(false));
        let (polled, until) = (Arc::clone(&producer), Arc::clone(&is_over));
        std::thread::Builder::new()
            .name("kafka-reports".to_owned())
            .spawn(move || {
                while !until.load(Ordering::Acquire) {
                    polled.poll(STEP);
                }
            })
            .context("start a thread")?;
        Ok(Self { producer, is_over })
    }
}

impl<C: ProducerContext + 'static> Deref for Polled<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &Self::Target {
        &self.producer
    }
}

impl<C: ProducerContext + 'static> Drop for Polled<C> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
    }
}
