//! Where a publisher was when it crashed or was overtaken: what the coverage of the seeds is made of.

use outbox_publisher::ports::ChangeAnswer;

use crate::relay::broker::{Fact, Queue};
use crate::relay::publisher::{Answer, Progress, Publisher, Question};
use crate::relay::rows::{Phase, Status};
use crate::relay::world::World;

/// The three points of a statement at which a process can end: sent, half done, answered and not heard.
macro_rules! statement {
    ($what:literal) => {
        [
            concat!("crash: ", $what, " sent"),
            concat!("crash: ", $what, " half done"),
            concat!("crash: ", $what, " done, answer unheard"),
        ]
    };
}

const RENEWAL: [&str; 3] = statement!("lease renewal or take-over");
const READ: [&str; 3] = statement!("read");
const LOOK: [&str; 3] = statement!("look");
const MARK: [&str; 3] = statement!("mark");
const SETTLE: [&str; 3] = statement!("settle");
const CHANGE: [&str; 3] = statement!("retry, park or fail");
const LOCKS: [&str; 3] = statement!("look at locks");

/// What every set of seeds must have met, by how much goes wrong: nothing; processes and network; the database, too.
pub(crate) const WANTED: [&[&str]; 3] = [
    &[
        "published",
        "failed",
        "parks",
        "marks",
        "floors raised",
        "leaf drops",
        "redrives",
        "redrives from the archive",
        "drains",
        "producers forgotten",
        "fault: poison key",
        "fault: rebalance",
    ],
    &[
        "rebuilds",
        RENEWAL[0],
        RENEWAL[2],
        READ[0],
        READ[2],
        LOOK[0],
        LOOK[2],
        MARK[0],
        MARK[1],
        MARK[2],
        SETTLE[0],
        SETTLE[2],
        CHANGE[0],
        CHANGE[2],
        LOCKS[0],
        LOCKS[1],
        LOCKS[2],
        "crash: nothing under way",
        "crash: rows handed to the producer",
        "crash: rows produced, not written",
        "crash: rows written, acknowledgement unheard",
        "crash: acknowledged, settle not begun",
        "crash: refused, retry or park not begun",
        "crash: producer rebuild under way",
        "crash: draining",
        "conflict: renewal of a lease that is another's",
        "conflict: read of an older epoch",
        "conflict: look of an older epoch",
        "conflict: retry, park or fail of an older epoch",
        "conflict: retry, park or fail of a row that is not PENDING",
        "conflict: settle of a row that is PUBLISHED",
        "take-over: of a crashed owner",
        "take-over: of a frozen owner",
        "take-over: of an owner that works on",
        "take-over: of an empty bucket",
        "take-over: rows not sent",
        "take-over: rows in the old owner's producer",
        "take-over: rows written and not settled",
        "take-over: rows parked or to be retried",
        "take-over: a key halted behind a FAILED row",
        "take-over: a settle under way",
        "take-over: a retry, park or fail under way",
        "take-over: a writer open",
        "fault: crash",
        "fault: freeze",
        "fault: slow ack",
        "fault: lost ack",
        "fault: refusal lost",
        "fault: duplicate delivery",
        "fault: zombie owner",
        "fault: clock jump of a host",
        "fault: broker outage",
        "fault: database outage",
        "fault: connection cut",
        "fault: statement refused",
        "fault: request brushed aside",
        "fault: row refused by the broker",
        "fault: row refused by the client",
        "fault: destination refused",
        "fault: topic unknown",
    ],
    &[
        "fault: database crash",
        "conflict: lease moved in another life of the server",
    ],
];

fn points_of(question: &Question) -> [&'static str; 3] {
    match question {
        Question::Control(_) => RENEWAL,
        Question::Read(_) => READ,
        Question::Look(_) => LOOK,
        Question::Mark => MARK,
        Question::Settle(_) => SETTLE,
        Question::Change(_) => CHANGE,
        Question::Locks(_) => LOCKS,
    }
}

/// What an answer says of others that were faster.
pub(crate) fn conflicts(question: &Question, answer: &Answer) -> Option<&'static str> {
    match (question, answer) {
        (Question::Control(asked), Answer::Control(got)) if asked.life.is_some_and(|life| life != got.life) => {
            Some("conflict: lease moved in another life of the server")
        }
        (Question::Control(asked), Answer::Control(got)) if got.kept.len() < asked.renew.len() => {
            Some("conflict: renewal of a lease that is another's")
        }
        (Question::Read(asked), Answer::Read(got)) if got.owned.len() < asked.buckets.len() => {
            Some("conflict: read of an older epoch")
        }
        (Question::Look(asked), Answer::Look(got)) if got.owned.len() < asked.buckets.len() => {
            Some("conflict: look of an older epoch")
        }
        (Question::Change(_), Answer::Change(ChangeAnswer::NotOwner)) => {
            Some("conflict: retry, park or fail of an older epoch")
        }
        (Question::Change(asked), Answer::Change(ChangeAnswer::Changed(got))) if got.len() < asked.rows.len() => {
            Some("conflict: retry, park or fail of a row that is not PENDING")
        }
        (Question::Settle(asked), Answer::Settle(changed)) if (*changed as usize) < asked.len() => {
            Some("conflict: settle of a row that is PUBLISHED")
        }
        _ => None,
    }
}

impl World {
    /// Everything that a publisher has under way, as points at which it could end.
    pub(crate) fn crash_points(&self, p: usize) -> Vec<&'static str> {
        let publisher = &self.publishers[p];
        let mut points = Vec::new();
        for statement in &publisher.statements {
            let [sent, half_done, done] = points_of(&statement.question);
            match &statement.progress {
                Progress::Sent => points.push(sent),
                Progress::Half(..) => points.push(half_done),
                Progress::Done(Answer::Lost | Answer::Refused) => {}
                Progress::Done(_) => points.push(done),
            }
        }
        let queues = || publisher.clients.iter().flat_map(|client| client.queues.values());
        let batches = || {
            queues()
                .flat_map(|queue: &Queue| &queue.in_flight)
                .flat_map(|batch| &batch.records)
        };
        let has_fact = |is_good: bool| {
            let mut facts = publisher.facts.iter().flatten();
            facts.any(|fact| matches!(fact, Fact::Report(_, _, result) if result.is_ok() == is_good))
        };
        let mut point = |is_here: bool, name| {
            if is_here {
                points.push(name);
            }
        };
        point(
            queues().any(|queue| !queue.waiting.is_empty()),
            "crash: rows handed to the producer",
        );
        point(
            batches().any(|record| !self.broker.is_on_log(record.number)),
            "crash: rows produced, not written",
        );
        point(
            batches().any(|record| self.broker.is_on_log(record.number)) || has_fact(true),
            "crash: rows written, acknowledgement unheard",
        );
        point(publisher.relay.unsettled() > 0, "crash: acknowledged, settle not begun");
        point(has_fact(false), "crash: refused, retry or park not begun");
        point(
            publisher.rebuilds.iter().any(Option::is_some),
            "crash: producer rebuild under way",
        );
        point(publisher.is_leaving, "crash: draining");
        if points.is_empty() {
            points.push("crash: nothing under way");
        }
        points
    }

    /// What a bucket is in the midst of when another takes it from its holder.
    pub(crate) fn take_over_states(&self, holder: u64, bucket: i16) -> Vec<&'static str> {
        let store = &self.store;
        let old = self.publishers.iter().find(|publisher| publisher.instance == holder);
        let old = old.filter(|publisher| publisher.is_alive);
        let mut states = vec![match old {
            None => "take-over: of a crashed owner",
            Some(publisher) if publisher.is_frozen => "take-over: of a frozen owner",
            Some(_) => "take-over: of an owner that works on",
        }];
        let mut state = |is_here: bool, name| {
            if is_here {
                states.push(name);
            }
        };
        let pending = || {
            store
                .open_rows(Status::Pending)
                .filter(|row| row.event.bucket == bucket)
        };
        let is_sent = |publisher: &Publisher, number: usize| {
            let mut queues = publisher.clients.iter().flat_map(|client| client.queues.values());
            queues.any(|queue| queue.holds(number))
        };
        let with_old = |number: usize| old.is_some_and(|publisher| is_sent(publisher, number));
        state(pending().next().is_none(), "take-over: of an empty bucket");
        state(
            pending().any(|row| !with_old(row.number) && !self.broker.is_on_log(row.number)),
            "take-over: rows not sent",
        );
        state(
            pending().any(|row| with_old(row.number)),
            "take-over: rows in the old owner's producer",
        );
        state(
            pending().any(|row| self.broker.is_on_log(row.number)),
            "take-over: rows written and not settled",
        );
        state(
            pending().any(|row| row.now.lane == 1),
            "take-over: rows parked or to be retried",
        );
        let failed = |row: &&crate::relay::rows::Row| row.event.bucket == bucket;
        let halts = |row: &crate::relay::rows::Row| self.config.halt_topics.is_on(&row.event.topic);
        state(
            store.open_rows(Status::Failed).filter(failed).any(halts),
            "take-over: a key halted behind a FAILED row",
        );
        let orphans = self.orphans.iter().filter(|(instance, _)| *instance == holder);
        let under_way: Vec<&Question> = old
            .iter()
            .flat_map(|publisher| &publisher.statements)
            .chain(orphans.map(|(_, statement)| statement))
            .filter(|statement| !matches!(statement.progress, Progress::Done(_)))
            .map(|statement| &statement.question)
            .collect();
        let is_settle = |question: &&Question| matches!(question, Question::Settle(_));
        let is_change = |question: &&Question| matches!(question, Question::Change(_));
        state(under_way.iter().any(is_settle), "take-over: a settle under way");
        state(
            under_way.iter().any(is_change),
            "take-over: a retry, park or fail under way",
        );
        let is_writing = |t: &crate::relay::rows::Transaction| t.phase == Phase::Running && t.inserted > 0;
        state(store.transactions.iter().any(is_writing), "take-over: a writer open");
        states
    }
}
