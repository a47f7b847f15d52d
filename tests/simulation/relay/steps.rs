//! What each step does.

use std::time::Duration;

use outbox_publisher::domain::topic::{Lane, TopicFacts, TopicFault};
use outbox_publisher::ports::SendError;

use crate::broker::{Fact, Frame, Place, Queue, Record, Verdict};
use crate::publisher::{Answer, Progress, Statement};
use crate::rows::Poison;
use crate::schedule::Action;
use crate::setup::{FORGET_AFTER, Faults, Setup, outbox_event};
use crate::world::World;

impl World {
    pub(crate) fn apply(&mut self, action: Action) {
        match action {
            Action::Write(number) => self.write(number),
            Action::Execute(p, at) => {
                let mut statement = self.publishers[p].statements[at].clone();
                self.execute(self.publishers[p].instance, &mut statement);
                self.publishers[p].statements[at] = statement;
            }
            Action::Orphan(at) => {
                let (instance, mut statement) = self.orphans.swap_remove(at);
                if self.chance.odds(2, 3) {
                    self.execute(instance, &mut statement);
                    if !matches!(statement.progress, Progress::Done(_)) {
                        self.execute(instance, &mut statement);
                    }
                }
            }
            Action::Answer(p, at) => {
                let statement = self.publishers[p].statements.remove(at);
                self.note(|_| format!("      {:?}", statement.progress));
                if matches!(statement.progress, Progress::Done(Answer::Lost)) {
                    self.coverage.hit("connections lost");
                }
                self.publishers[p].tell(statement, self.now);
                self.perhaps_advance(p);
            }
            Action::Refuse(p, at) => {
                self.publishers[p].statements[at].progress = Progress::Done(Answer::Refused);
                self.coverage.hit("statements refused");
            }
            Action::Cut(p, at) => {
                let statement = &mut self.publishers[p].statements[at];
                let lost = Progress::Done(Answer::Lost);
                let was = std::mem::replace(&mut statement.progress, lost);
                if !matches!(was, Progress::Done(_)) {
                    let orphan = Statement {
                        progress: was,
                        ..statement.clone()
                    };
                    self.orphans.push((self.publishers[p].instance, orphan));
                }
            }
            Action::Tick(p) => self.advance(p),
            Action::Wake(p) => {
                self.publishers[p].relay.wake(self.now);
                self.perhaps_advance(p);
            }
            Action::Tell(p, lane) => {
                let count = 1 + self.chance.below(3);
                for _ in 0..count.min(self.publishers[p].facts[lane as usize].len()) {
                    let commands = self.publishers[p].tell_fact(lane, self.now);
                    self.carry_out(p, commands);
                }
                self.perhaps_advance(p);
            }
            Action::Form(p, lane, place) => {
                let count = 1 + self.chance.below(3);
                let frame = self.publishers[p].clients[lane as usize].form(place, count);
                self.broker.push(frame);
            }
            Action::Resend(p, lane, place) => self.resend(p, lane, place),
            Action::Handle(pipe) => {
                if let Verdict::Refused(error) = self.broker.handle(pipe, &mut self.store.events, self.now) {
                    self.coverage.hit(if matches!(error, SendError::Row(_)) {
                        "rows refused"
                    } else {
                        "destinations refused"
                    });
                }
            }
            Action::Reject(pipe) => self.broker.reject(pipe),
            Action::LoseAnswer(at) => {
                self.broker.answers.remove(at);
                self.coverage.hit("acknowledgements lost");
            }
            Action::Respond(at) => self.respond(at),
            Action::Rebuild(p, lane) => self.rebuild(p, lane),
            Action::Topic(p, is_known) => {
                let number = self.publishers[p].topics_asked.remove(0);
                let facts = TopicFacts {
                    partitions: self.partitions,
                    record_bytes_max: Some(1_000_000),
                };
                let answer = match (is_known, self.chance.below(8)) {
                    (true, _) => Ok(facts),
                    (false, 0) => Err(TopicFault::NoAnswer("no broker answers".to_owned())),
                    (false, _) => Err(TopicFault::Refused("unknown topic".to_owned())),
                };
                self.publishers[p].relay.topic_known(number, answer, self.now);
                self.perhaps_advance(p);
            }
            Action::Crash(p) => self.crash(p),
            Action::Restart(p) => {
                self.publishers[p] = self.new_publisher();
                self.wake_at[p] = self.now;
            }
            Action::Freeze(p) => {
                self.publishers[p].is_frozen = true;
                self.coverage.hit("freezes");
            }
            Action::Thaw(p) => self.publishers[p].is_frozen = false,
            Action::Leave(p) => {
                self.publishers[p].is_leaving = true;
                self.publishers[p].relay.drain(self.now);
                self.advance(p);
            }
            Action::CrashDatabase => self.crash_database(),
            Action::Redrive(at) => {
                self.coverage.hit(if self.store.rows[at].is_dropped {
                    "redrives from the archive"
                } else {
                    "redrives"
                });
                self.store.redrive(at, self.step);
            }
            Action::DropLeaf => {
                if self.store.drop_leaf() {
                    self.coverage.hit("leaf drops");
                }
            }
            Action::Forbid(topic) => self.broker.forbidden[topic] = !self.broker.forbidden[topic],
            Action::Leap => {
                self.now += Duration::from_millis(1_100);
                self.forget_idle();
            }
            Action::Jump => {
                let awake = (0..self.publishers.len()).filter(|p| self.publishers[*p].is_awake());
                if let Some(p) = awake.min_by_key(|p| self.wake_at[*p]) {
                    self.now = self.now.max(self.wake_at[p]);
                    self.advance(p);
                } else {
                    self.now += Duration::from_millis(10);
                }
            }
        }
    }

    /// Facts may come in several before the relay is asked.
    fn perhaps_advance(&mut self, p: usize) {
        if self.is_quiet || self.chance.odds(3, 4) {
            self.advance(p);
        } else {
            self.wake_at[p] = self.now;
        }
    }

    fn write(&mut self, number: usize) {
        let poison = self.poison();
        let buckets = self.setup.buckets;
        self.store.write(number, self.step, |event, topic, key| {
            (outbox_event(event, topic, key, buckets, poison), poison)
        });
    }

    fn poison(&mut self) -> Poison {
        let Setup { poison, faults, .. } = self.setup;
        if !self.chance.odds(1, poison) {
            return Poison::None;
        }
        let times = self.chance.pick(&[1, 1, 2, 9]);
        match self.chance.below(if faults == Faults::None { 1 } else { 5 }) {
            0 => Poison::Unsendable,
            1 | 2 => Poison::Client(times),
            _ => Poison::Broker(times),
        }
    }

    fn resend(&mut self, p: usize, lane: Lane, place: Place) {
        let client = &self.publishers[p].clients[lane as usize];
        let (id, batches) = (client.id, client.queues[&place].in_flight.clone());
        for batch in batches {
            if !self.broker.is_in_pipe(id, place, batch.sequence) {
                self.broker.push(Frame {
                    client: id,
                    place,
                    batch,
                });
            }
        }
    }

    fn respond(&mut self, at: usize) {
        let (frame, verdict) = self.broker.answers.remove(at).expect("an answer waits");
        let Some((p, lane)) = self.find_client(frame.client) else {
            return;
        };
        if !self.publishers[p].is_alive {
            return;
        }
        self.broker.touch(frame.client, frame.place, self.now);
        let publisher = &mut self.publishers[p];
        let (client, facts) = (&mut publisher.clients[lane], &mut publisher.facts[lane]);
        let generation = client.generation;
        let Some(queue) = client.queues.get_mut(&frame.place) else {
            return;
        };
        let Some(place) = queue
            .in_flight
            .iter()
            .position(|batch| batch.sequence == frame.batch.sequence)
        else {
            return;
        };
        let report = |result: Result<(), SendError>| {
            move |record: Record| Fact::Report(generation, record.token, result.clone())
        };
        match verdict {
            Verdict::Written => {
                let batch = queue.in_flight.remove(place).expect("just found");
                facts.extend(batch.records.into_iter().map(report(Ok(()))));
            }
            Verdict::TryAgain => {}
            Verdict::OutOfSequence => {
                // The first in flight, with all before it acknowledged: the stream cannot go on.
                let expected = self.broker.next_sequence(frame.client, frame.place);
                let is_coming = self.broker.is_in_pipe(frame.client, frame.place, frame.batch.sequence);
                if place == 0 && !is_coming && expected > frame.batch.sequence {
                    client.is_closed = true;
                    client.is_fatal = true;
                    facts.push_back(Fact::Failed(generation));
                }
            }
            Verdict::Refused(error) => {
                let batch = queue.in_flight.remove(place).expect("just found");
                client.is_closed = true;
                client.is_fatal = true; // the stream has a gap
                facts.extend(batch.records.into_iter().map(report(Err(error))));
                facts.push_back(Fact::Failed(generation));
            }
        }
    }

    fn rebuild(&mut self, p: usize, lane: Lane) {
        let generation = self.publishers[p].rebuilds[lane as usize].take().expect("asked for");
        let next = self.broker.new_client(generation + 1);
        let publisher = &mut self.publishers[p];
        let mut old = std::mem::replace(&mut publisher.clients[lane as usize], next);
        let facts = &mut publisher.facts[lane as usize];
        facts.extend(
            old.purge()
                .into_iter()
                .map(|record| Fact::Report(generation, record.token, Err(SendError::Unknown))),
        );
        facts.push_back(Fact::Rebuilt(generation + 1));
    }

    fn crash(&mut self, p: usize) {
        self.crashes += 1;
        self.coverage.hit("crashes");
        let mut next = self.new_publisher();
        next.is_alive = false;
        let old = std::mem::replace(&mut self.publishers[p], next);
        for statement in old.statements {
            if !matches!(statement.progress, Progress::Done(_)) {
                self.orphans.push((old.instance, statement));
            }
        }
    }

    fn forget_idle(&mut self) {
        let publishers = &self.publishers;
        // An acknowledgement that its publisher has not heard of is no idleness yet.
        let is_busy = |id: u64, place: Place| {
            publishers
                .iter()
                .flat_map(|publisher| publisher.clients.iter().zip(&publisher.facts))
                .any(|(client, facts)| {
                    let has_rows = |queue: &Queue| !queue.waiting.is_empty() || !queue.in_flight.is_empty();
                    client.id == id && (!facts.is_empty() || client.queues.get(&place).is_some_and(has_rows))
                })
        };
        let count = self.broker.forget_idle(self.now, FORGET_AFTER, is_busy);
        self.coverage.add("producers forgotten", count as u64);
    }
}
