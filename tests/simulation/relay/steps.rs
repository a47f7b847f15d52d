//! What each step does.

use std::time::Duration;

use outbox_publisher::domain::topic::{Lane, TopicFacts, TopicFault};
use outbox_publisher::ports::SendError;

use crate::relay::broker::{Fact, Frame, Place, Record, Reply, Verdict};
use crate::relay::publisher::{Answer, Progress, Statement};
use crate::relay::rows::Poison;
use crate::relay::schedule::Action;
use crate::relay::setup::{Faults, Setup, outbox_event};
use crate::relay::world::World;

/// What the store waits after it could not connect, before it says so.
const CONNECT_PAUSE: Duration = Duration::from_millis(500);

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
                let now = self.clock(p);
                self.publishers[p].tell(statement, now);
                self.perhaps_advance(p);
            }
            Action::Refuse(p, at) => {
                self.publishers[p].statements[at].progress = Progress::Done(Answer::Refused);
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
                    self.unheard.insert(self.publishers[p].instance);
                }
            }
            Action::Tick(p) => self.advance(p),
            Action::Wake(p) => {
                let now = self.clock(p);
                self.publishers[p].relay.wake(now);
                self.perhaps_advance(p);
            }
            Action::Tell(p, lane) => {
                let count = 1 + self.chance.below(3);
                let now = self.clock(p);
                for _ in 0..count.min(self.publishers[p].facts[lane as usize].len()) {
                    let commands = self.publishers[p].tell_fact(lane, now);
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
            Action::Handle(pipe) => self.handle(pipe),
            Action::Reject(pipe) => self.broker.reject(pipe),
            Action::LoseAnswer(at) => {
                let reply = self.broker.answers.remove(at).expect("an answer waits");
                self.coverage.hit(match reply.verdict {
                    Verdict::Written => "fault: lost ack",
                    Verdict::Refused(_) | Verdict::OutOfSequence | Verdict::TryAgain => "fault: refusal lost",
                });
            }
            Action::SlowAnswer(at) => self.broker.answers[at].held_until = self.now + self.config.lease,
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
                    (false, _) if self.broker.is_away => Err(TopicFault::NoAnswer("no broker answers".to_owned())),
                    (false, 0) => Err(TopicFault::NoAnswer("no broker answers".to_owned())),
                    (false, _) => Err(TopicFault::Refused("unknown topic".to_owned())),
                };
                let now = self.clock(p);
                self.publishers[p].relay.topic_known(number, answer, now);
                self.perhaps_advance(p);
            }
            Action::Crash(p) => self.crash(p),
            Action::Restart(p) => {
                self.publishers[p] = self.new_publisher();
                self.wake_at[p] = self.clock(p);
            }
            Action::Freeze(p) => {
                self.publishers[p].is_frozen = true;
            }
            Action::Thaw(p) => self.publishers[p].is_frozen = false,
            Action::Leave(p) => {
                self.publishers[p].is_leaving = true;
                let now = self.clock(p);
                self.publishers[p].relay.drain(now);
                self.advance(p);
            }
            Action::CrashDatabase => self.crash_database(),
            Action::LoseBroker => {
                self.outages += 1;
                self.broker.is_away = true;
            }
            Action::FindBroker => self.broker.is_away = false,
            Action::LoseDatabase => self.lose_database(),
            Action::FindDatabase => self.store.is_away = false,
            Action::Deny(p, at) => {
                self.publishers[p].statements[at].progress = Progress::Done(Answer::Lost);
                if self.is_quiet {
                    self.now += CONNECT_PAUSE;
                }
            }
            Action::JumpClock(host) => self.jump_clock(host),
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
                let wait = |p: usize| self.wake_at[p].saturating_sub(self.clock(p));
                if let Some((p, wait)) = awake.map(|p| (p, wait(p))).min_by_key(|(_, wait)| *wait) {
                    self.now += wait;
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
            self.wake_at[p] = self.clock(p);
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
        let Reply {
            frame,
            verdict,
            held_until,
        } = self.broker.answers.remove(at).expect("an answer waits");
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
                if !held_until.is_zero() {
                    self.coverage.hit("fault: slow ack");
                }
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

    fn handle(&mut self, pipe: usize) {
        let frame = self.broker.pipes[pipe].front().expect("pipes are not empty").clone();
        match self.broker.handle(pipe, &mut self.store.events, self.now) {
            Verdict::Written if self.is_of_a_zombie(&frame) => self.coverage.hit("fault: zombie owner"),
            Verdict::Refused(SendError::Row(_)) => self.coverage.hit("fault: row refused by the broker"),
            Verdict::Refused(_) => self.coverage.hit("fault: destination refused"),
            Verdict::Written | Verdict::OutOfSequence | Verdict::TryAgain => {}
        }
    }

    /// Whether a request is of a publisher that has lost a bucket in it to another.
    fn is_of_a_zombie(&self, frame: &Frame) -> bool {
        let mut publishers = self.publishers.iter();
        let Some(sender) = publishers.find(|one| one.clients.iter().any(|client| client.id == frame.client)) else {
            return true; // a process that has ended
        };
        let bucket_of = |number: usize| {
            self.store
                .rows
                .iter()
                .find(|row| row.number == number)
                .map(|row| row.event.bucket)
        };
        let mut buckets = frame.batch.records.iter().filter_map(|record| bucket_of(record.number));
        buckets.any(|bucket| self.store.leases[&bucket].owner != Some(sender.instance))
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
}
