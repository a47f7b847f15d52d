//! Carries out what the relay says, and tells it what came of it.
//!
//! One task owns the relay. Statements run as tasks of their own, one of each kind at a time, since the
//! relay asks for no more; rows go to the broker without waiting. Nothing here decides.

use std::sync::Arc;
use std::time::Duration;

use shared::cause::chain;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::domain::marks::Xid;
use crate::domain::topic::Lane;
use crate::ports::{
    Broker, BrokerFact, ChangeAnswer, ControlAnswer, LookAnswer, OutboxStore, Outgoing, ReadAnswer, StoreError,
};
use crate::relay::{Command, Op, Relay};

/// Facts taken in before the relay is asked again.
const FACTS_PER_TURN: usize = 4_096;
/// How long giving back the leases may take at the very end.
const LEAVE_WAIT: Duration = Duration::from_secs(3);

/// What the driver shows of the relay, after each turn.
pub trait Observer: Send + 'static {
    /// The relay as it stands.
    fn turn(&mut self, relay: &mut Relay, now: Duration);
    /// A statement succeeded, or none can: with the reason.
    fn store(&mut self, state: Result<(), &str>);
    /// A broker was reached, or none can be: with the reason.
    fn broker(&mut self, state: Result<(), &str>);
}

/// An answer of the store.
enum Answer {
    Read(ReadAnswer),
    Look(LookAnswer),
    Mark(i64),
    Settled(u64),
    Changed(ChangeAnswer),
    Control(ControlAnswer),
    Locks(i64, Vec<Xid>),
}

/// Why the driver ended without having drained.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The deadline passed with rows in flight. Their leases were given back; they may be published twice.
    #[error("drain was not finished in time: {held} buckets were still held")]
    NotDrained {
        /// How many.
        held: usize,
    },
    /// Not even the leases could be given back: they run out by themselves.
    #[error("leases were not given back")]
    NotLeft(#[source] StoreError),
}

/// The relay with its store and broker.
pub struct Driver<S, B, O> {
    relay: Relay,
    store: Arc<S>,
    broker: B,
    observer: O,
    facts: UnboundedReceiver<BrokerFact>,
    doorbell: Arc<Notify>,
    bounds: Bounds,
    began: Instant,
    /// How often the store was lost: what was asked before the last time is awaited by nobody.
    losses: u64,
    answers: UnboundedSender<Answered>,
    answered: UnboundedReceiver<Answered>,
}

/// How long the driver waits.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// For one statement, connecting included. A server that swallows everything counts as lost after it.
    pub statement: Duration,
    /// For what is in flight when the shutdown begins.
    pub drain: Duration,
}

/// What came of a statement.
struct Answered {
    op: Op,
    kind: Kind,
    /// The store's losses when it was asked.
    losses: u64,
    answer: Result<Answer, StoreError>,
}

/// Which kind of statement an answer is to: a refusal goes back to whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Settle,
    Change,
    Other,
}

impl<S: OutboxStore, B: Broker, O: Observer> Driver<S, B, O> {
    /// Puts the parts together. `facts` is what the broker tells, `doorbell` is notified when something
    /// new may have been committed.
    pub fn new(
        relay: Relay,
        store: Arc<S>,
        broker: B,
        observer: O,
        facts: UnboundedReceiver<BrokerFact>,
        doorbell: Arc<Notify>,
        bounds: Bounds,
    ) -> Self {
        let (answers, answered) = unbounded_channel();
        let began = Instant::now();
        Self {
            relay,
            store,
            broker,
            observer,
            facts,
            doorbell,
            bounds,
            began,
            losses: 0,
            answers,
            answered,
        }
    }

    /// Claims, publishes and settles until `shutdown`, then drains and gives back its leases.
    ///
    /// # Errors
    /// If the drain was not finished in time, or the leases could not be given back.
    ///
    /// # Delivery
    /// At least once. A crash between the acknowledgement and the settle publishes the event again under
    /// the same id; consumers discard it by that id.
    ///
    /// # Cancel safety
    /// Dropping this future loses nothing, but its leases wait for their end.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), DriverError> {
        let mut reports = Vec::with_capacity(FACTS_PER_TURN);
        let mut deadline = None;
        loop {
            let now = self.began.elapsed();
            let commands = self.relay.advance(now);
            self.carry_out(commands);
            self.observer.turn(&mut self.relay, now);
            if self.relay.is_drained() {
                break;
            }
            let next = self.began + self.relay.next_at(now);
            tokio::select! {
                biased;
                () = shutdown.cancelled(), if deadline.is_none() => {
                    tracing::info!("draining: {} buckets held, {} rows in flight", self.relay.buckets_held(), self.relay.in_flight());
                    deadline = Some(Instant::now() + self.bounds.drain);
                    self.relay.drain(self.began.elapsed());
                }
                () = sleep_until(deadline.unwrap_or(next)), if deadline.is_some_and(|deadline| deadline <= Instant::now()) => break,
                Some(answered) = self.answered.recv() => self.answer(answered),
                _ = self.facts.recv_many(&mut reports, FACTS_PER_TURN) => self.take_in(&mut reports),
                () = self.doorbell.notified() => self.relay.wake(self.began.elapsed()),
                () = sleep_until(deadline.map_or(next, |deadline| deadline.min(next))) => {}
            }
        }
        let held = self.relay.buckets_held();
        match timeout(LEAVE_WAIT, self.store.leave()).await {
            Ok(Ok(())) if held == 0 => Ok(()),
            Ok(Ok(())) => Err(DriverError::NotDrained { held }),
            Ok(Err(error)) => Err(DriverError::NotLeft(error)),
            Err(_) => Err(DriverError::NotLeft(StoreError::Lost(anyhow::anyhow!(
                "no answer within {LEAVE_WAIT:?}"
            )))),
        }
    }

    fn carry_out(&mut self, commands: Vec<Command>) {
        let mut sends: [(u64, Vec<Outgoing>); 2] = [(0, Vec::new()), (0, Vec::new())];
        let mut rebuilds = Vec::new();
        for command in commands {
            match command {
                Command::Send {
                    lane,
                    generation,
                    token,
                    partition,
                    epoch,
                    event,
                } => {
                    let (of, rows) = &mut sends[lane as usize];
                    *of = generation;
                    rows.push(Outgoing {
                        token,
                        partition,
                        epoch,
                        event,
                    });
                }
                Command::Rebuild(lane, generation) => rebuilds.push((lane, generation)),
                Command::AskTopic(number, name) => self.broker.ask_topic(number, name),
                Command::Read(op, request) => {
                    self.spawn(op, Kind::Other, move |store| async move {
                        store.read(request).await.map(Answer::Read)
                    });
                }
                Command::Look(op, request) => {
                    self.spawn(op, Kind::Other, move |store| async move {
                        store.look(request).await.map(Answer::Look)
                    });
                }
                Command::Mark(op) => {
                    self.spawn(op, Kind::Other, move |store| async move {
                        store.mark().await.map(Answer::Mark)
                    });
                }
                Command::Settle(op, rows) => {
                    self.spawn(op, Kind::Settle, move |store| async move {
                        store.settle(rows).await.map(Answer::Settled)
                    });
                }
                Command::Change(op, request) => {
                    self.spawn(op, Kind::Change, move |store| async move {
                        store.change(request).await.map(Answer::Changed)
                    });
                }
                Command::Control(op, request) => {
                    self.spawn(op, Kind::Other, move |store| async move {
                        store.control(request).await.map(Answer::Control)
                    });
                }
                Command::Locks(op, xids) => {
                    self.spawn(op, Kind::Other, move |store| async move {
                        store
                            .locks(xids)
                            .await
                            .map(|(sample, without)| Answer::Locks(sample, without))
                    });
                }
            }
        }
        for (lane, (generation, rows)) in Lane::BOTH.into_iter().zip(sends) {
            if !rows.is_empty() {
                self.broker.send(lane, generation, rows);
            }
        }
        for (lane, generation) in rebuilds {
            self.broker.rebuild(lane, generation);
        }
    }

    fn spawn<F, Fut>(&self, op: Op, kind: Kind, statement: F)
    where
        F: FnOnce(Arc<S>) -> Fut,
        Fut: Future<Output = Result<Answer, StoreError>> + Send + 'static,
    {
        let (answers, answer) = (self.answers.clone(), statement(Arc::clone(&self.store)));
        let (bound, losses) = (self.bounds.statement, self.losses);
        tokio::spawn(async move {
            let answer = timeout(bound, answer).await;
            let answer =
                answer.unwrap_or_else(|_| Err(StoreError::Lost(anyhow::anyhow!("no answer within {bound:?}"))));
            let _ = answers.send(Answered {
                op,
                kind,
                losses,
                answer,
            });
        });
    }

    fn answer(
        &mut self,
        Answered {
            op,
            kind,
            losses,
            answer,
        }: Answered,
    ) {
        let now = self.began.elapsed();
        let relay = &mut self.relay;
        match answer {
            Ok(answer) => {
                self.observer.store(Ok(()));
                match answer {
                    Answer::Read(answer) => relay.read_done(op, answer, now),
                    Answer::Look(answer) => relay.look_done(op, answer, now),
                    Answer::Mark(sample) => relay.mark_done(op, sample),
                    Answer::Settled(changed) => relay.settle_done(op, changed),
                    Answer::Changed(answer) => relay.change_done(op, answer, now),
                    Answer::Control(answer) => relay.control_done(op, answer, now),
                    Answer::Locks(sample, without) => relay.locks_done(op, sample, &without),
                }
            }
            // All connections go at once: the first that tells has ended every tenancy, and those taken since
            // learn from statements of their own whether they last.
            Err(StoreError::Lost(_)) if losses < self.losses => {}
            Err(StoreError::Lost(error)) => {
                self.losses += 1;
                let reason = chain(error.as_ref());
                tracing::warn!("connection to Postgres lost, every bucket begins anew: {reason}");
                self.observer.store(Err(&reason));
                relay.store_lost(now);
            }
            Err(StoreError::Refused(error)) => {
                let reason = chain(error.as_ref());
                tracing::warn!("Postgres refused a statement, it is sent again: {reason}");
                self.observer.store(Err(&reason));
                match kind {
                    Kind::Settle => relay.settle_refused(op, now),
                    Kind::Change => relay.change_refused(op, now),
                    Kind::Other => relay.refused(op, now),
                }
            }
        }
    }

    fn take_in(&mut self, facts: &mut Vec<BrokerFact>) {
        let now = self.began.elapsed();
        let mut commands = Vec::new();
        for fact in facts.drain(..) {
            match fact {
                BrokerFact::Reports {
                    lane,
                    generation,
                    reports,
                } => {
                    for (token, result) in reports {
                        if result.is_ok() {
                            self.observer.broker(Ok(()));
                        }
                        self.relay.reported(lane, generation, token, result, now, &mut commands);
                    }
                }
                BrokerFact::Failed {
                    lane,
                    generation,
                    reason,
                } => {
                    self.relay.producer_failed(lane, generation, &reason, &mut commands);
                }
                BrokerFact::Rebuilt { lane, generation } => self.relay.producer_rebuilt(lane, generation),
                BrokerFact::Topic { number, facts } => {
                    if facts.is_ok() {
                        self.observer.broker(Ok(()));
                    }
                    self.relay.topic_known(number, facts, now);
                }
                BrokerFact::Reached => self.observer.broker(Ok(())),
                BrokerFact::Unreachable(reason) => self.observer.broker(Err(&reason)),
            }
        }
        self.carry_out(commands);
    }
}
