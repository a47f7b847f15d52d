//! A Kafka with the client in front of it: batches in flight, lost answers, frames that outlive their
//! producer, no memory of a producer at first.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use outbox_publisher::ports::SendError;

use crate::relay::rows::{Event, Poison};

/// A topic's partition.
pub(crate) type Place = (usize, i32);

/// A row in a client's hands.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) token: usize,
    pub(crate) number: usize, // of its event
}

#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) sequence: u64, // of its first record
    pub(crate) records: Vec<Record>,
}

/// One partition of a client.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) waiting: VecDeque<Record>,
    pub(crate) in_flight: VecDeque<Batch>,
    next_sequence: u64,
}

impl Queue {
    /// Whether the record of an event is in it.
    pub(crate) fn holds(&self, number: usize) -> bool {
        let mut in_flight = self.in_flight.iter().flat_map(|batch| &batch.records);
        self.waiting.iter().any(|record| record.number == number) || in_flight.any(|record| record.number == number)
    }
}

/// What a client tells its publisher, in order.
#[derive(Debug)]
pub(crate) enum Fact {
    Report(u64, usize, Result<(), SendError>),
    Failed(u64),
    Rebuilt(u64),
}

/// One life of a producer.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) generation: u64,
    /// Takes nothing more.
    pub(crate) is_closed: bool,
    /// Sends nothing more either.
    pub(crate) is_fatal: bool,
    pub(crate) queues: BTreeMap<Place, Queue>,
}

impl Client {
    pub(crate) fn new(id: u64, generation: u64) -> Self {
        Self {
            id,
            generation,
            is_closed: false,
            is_fatal: false,
            queues: BTreeMap::new(),
        }
    }

    /// Makes a batch of the first waiting records and puts it in flight.
    pub(crate) fn form(&mut self, place: Place, count: usize) -> Frame {
        let queue = self.queues.get_mut(&place).expect("a queue with records");
        let count = count.min(queue.waiting.len());
        let batch = Batch {
            sequence: queue.next_sequence,
            records: queue.waiting.drain(..count).collect(),
        };
        queue.next_sequence += batch.records.len() as u64;
        queue.in_flight.push_back(batch.clone());
        Frame {
            client: self.id,
            place,
            batch,
        }
    }

    /// All it holds, in order, and that is no longer its.
    pub(crate) fn purge(&mut self) -> Vec<Record> {
        let mut all = Vec::new();
        for queue in std::mem::take(&mut self.queues).into_values() {
            all.extend(queue.in_flight.into_iter().flat_map(|batch| batch.records));
            all.extend(queue.waiting);
        }
        all
    }
}

/// A request on its way.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) client: u64,
    pub(crate) place: Place,
    pub(crate) batch: Batch,
}

/// What the broker says to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Written,
    OutOfSequence,
    TryAgain,
    Refused(SendError),
}

/// An answer on its way back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) frame: Frame,
    pub(crate) verdict: Verdict,
    /// Not before then; zero unless something slows it down.
    pub(crate) held_until: Duration,
}

impl Reply {
    fn new(frame: Frame, verdict: Verdict) -> Self {
        Self {
            frame,
            verdict,
            held_until: Duration::ZERO,
        }
    }
}

#[derive(Debug)]
struct Known {
    next_sequence: u64,
    last_at: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Broker {
    pub(crate) logs: BTreeMap<Place, Vec<usize>>,
    known: BTreeMap<(u64, Place), Known>,
    pub(crate) pipes: Vec<VecDeque<Frame>>,
    pub(crate) answers: VecDeque<Reply>,
    pub(crate) forbidden: [bool; 2],
    /// No request reaches it.
    pub(crate) is_away: bool,
    clients: u64,
}

impl Broker {
    pub(crate) fn new_client(&mut self, generation: u64) -> Client {
        self.clients += 1;
        Client::new(self.clients, generation)
    }

    pub(crate) fn is_on_log(&self, number: usize) -> bool {
        self.logs.values().any(|log| log.contains(&number))
    }

    /// A request leaves its client; requests of one client and partition keep their order.
    pub(crate) fn push(&mut self, frame: Frame) {
        let is_its = |pipe: &&mut VecDeque<Frame>| {
            pipe.front()
                .is_some_and(|first| first.client == frame.client && first.place == frame.place)
        };
        match self.pipes.iter_mut().find(is_its) {
            Some(pipe) => pipe.push_back(frame),
            None => self.pipes.push(VecDeque::from([frame])),
        }
    }

    fn pop(&mut self, pipe: usize) -> Frame {
        let frame = self.pipes[pipe].pop_front().expect("pipes are not empty");
        if self.pipes[pipe].is_empty() {
            self.pipes.remove(pipe);
        }
        frame
    }

    /// Whether a batch is on its way or its answer is.
    pub(crate) fn is_under_way(&self, client: u64, place: Place, sequence: u64) -> bool {
        let is_it = |frame: &Frame| frame.client == client && frame.place == place && frame.batch.sequence == sequence;
        self.pipes.iter().flatten().any(is_it) || self.answers.iter().any(|reply| is_it(&reply.frame))
    }

    pub(crate) fn is_in_pipe(&self, client: u64, place: Place, sequence: u64) -> bool {
        self.pipes
            .iter()
            .flatten()
            .any(|f| f.client == client && f.place == place && f.batch.sequence == sequence)
    }

    /// Brushes the next request of a pipe aside; nothing is written.
    pub(crate) fn reject(&mut self, pipe: usize) {
        let frame = self.pop(pipe);
        self.answers.push_back(Reply::new(frame, Verdict::TryAgain));
    }

    /// Handles the next request of a pipe.
    pub(crate) fn handle(&mut self, pipe: usize, events: &mut [Event], now: Duration) -> Verdict {
        let frame = self.pop(pipe);
        let verdict = self.judge(&frame, events, now);
        self.answers.push_back(Reply::new(frame, verdict.clone()));
        verdict
    }

    fn judge(&mut self, frame: &Frame, events: &mut [Event], now: Duration) -> Verdict {
        let Frame { client, place, batch } = frame;
        // Without a memory of the producer any first sequence is taken (KAFKA-15591).
        let expected = self
            .known
            .get(&(*client, *place))
            .map_or(batch.sequence, |known| known.next_sequence);
        if batch.sequence < expected {
            let is_written = batch.records.iter().all(|record| self.is_on_log(record.number));
            return if is_written {
                Verdict::Written
            } else {
                Verdict::OutOfSequence
            };
        }
        if batch.sequence > expected {
            return Verdict::OutOfSequence;
        }
        if self.forbidden[place.0] {
            return Verdict::Refused(SendError::Destination("forbidden".to_owned()));
        }
        let is_bad = |record: &&Record| matches!(events[record.number].poison, Poison::Broker(n) if n > 0);
        if batch.records.iter().any(|record| is_bad(&record)) {
            if let [only] = batch.records.as_slice()
                && let Poison::Broker(left) = &mut events[only.number].poison
                && *left < 9
            {
                *left -= 1;
            }
            return Verdict::Refused(SendError::Row("bad row".to_owned()));
        }
        let next_sequence = batch.sequence + batch.records.len() as u64;
        self.known.insert(
            (*client, *place),
            Known {
                next_sequence,
                last_at: now,
            },
        );
        self.logs
            .entry(*place)
            .or_default()
            .extend(batch.records.iter().map(|record| record.number));
        Verdict::Written
    }

    /// The highest sequence that it would accept.
    pub(crate) fn next_sequence(&self, client: u64, place: Place) -> u64 {
        self.known.get(&(client, place)).map_or(0, |known| known.next_sequence)
    }

    /// Its client has heard of it: from here it counts as idle.
    pub(crate) fn touch(&mut self, client: u64, place: Place, now: Duration) {
        if let Some(known) = self.known.get_mut(&(client, place)) {
            known.last_at = now;
        }
    }

    /// Its client's host stood still for so long: that counts as no idleness.
    pub(crate) fn excuse(&mut self, clients: &[u64], pause: Duration) {
        for ((client, _), known) in &mut self.known {
            if clients.contains(client) {
                known.last_at += pause;
            }
        }
    }

    /// Producers idle for longer than `idle` are forgotten (`producer.id.expiration.ms`).
    pub(crate) fn forget_idle(&mut self, now: Duration, idle: Duration, is_busy: impl Fn(u64, Place) -> bool) -> usize {
        let before = self.known.len();
        let pipes = &self.pipes;
        let has_frame =
            |client: u64, place: Place| pipes.iter().flatten().any(|f| f.client == client && f.place == place);
        self.known.retain(|(client, place), known| {
            now.saturating_sub(known.last_at) < idle || is_busy(*client, *place) || has_frame(*client, *place)
        });
        before - self.known.len()
    }
}
