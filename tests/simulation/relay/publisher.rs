//! A publisher as the world sees it: a relay, its statements under way, its two clients.

use std::collections::VecDeque;
use std::time::Duration;

use outbox_publisher::domain::marks::Xid;
use outbox_publisher::domain::topic::Lane;
use outbox_publisher::ports::{
    ChangeAnswer, ChangeRequest, ControlAnswer, ControlRequest, LookAnswer, LookRequest, ReadAnswer, ReadBucket,
    ReadRequest, SettleRow,
};
use outbox_publisher::relay::{Command, Op, Relay};

use crate::relay::broker::{Client, Fact};
use crate::relay::setup::number_of;
use crate::relay::store::Store;

/// What is asked of the store.
#[derive(Debug, Clone)]
pub(crate) enum Question {
    Read(ReadRequest),
    Look(LookRequest),
    Mark,
    Settle(Vec<SettleRow>),
    Change(ChangeRequest),
    Control(ControlRequest),
    Locks(Vec<Xid>),
}

/// What it answers.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Read(ReadAnswer),
    Look(LookAnswer),
    Mark(i64),
    Settle(u64),
    Change(ChangeAnswer),
    Control(ControlAnswer),
    Locks(i64, Vec<Xid>),
    Refused,
    Lost,
}

/// How far a statement is.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    Sent,
    /// Half done: the sample was taken, or with a rule off the xid was drawn.
    Half(i64, Xid, Vec<Xid>),
    Done(Answer),
}

/// A statement under way.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    pub(crate) op: Op,
    pub(crate) question: Question,
    pub(crate) progress: Progress,
}

#[derive(Debug)]
pub(crate) struct Publisher {
    /// The lock owner of its leases; a restart is another.
    pub(crate) instance: u64,
    pub(crate) relay: Relay,
    pub(crate) is_alive: bool,
    pub(crate) is_frozen: bool,
    pub(crate) is_leaving: bool,
    pub(crate) statements: Vec<Statement>,
    pub(crate) clients: [Client; 2],
    pub(crate) facts: [VecDeque<Fact>; 2],
    pub(crate) rebuilds: [Option<u64>; 2],
    pub(crate) topics_asked: Vec<usize>,
    /// How far the clock of its host has run ahead of ours, and fallen behind while the host stood still.
    pub(crate) ahead: Duration,
    pub(crate) behind: Duration,
}

impl Publisher {
    pub(crate) fn new(instance: u64, relay: Relay, clients: [Client; 2]) -> Self {
        Self {
            instance,
            relay,
            is_alive: true,
            is_frozen: false,
            is_leaving: false,
            statements: Vec::new(),
            clients,
            facts: Default::default(),
            rebuilds: [None, None],
            topics_asked: Vec::new(),
            ahead: Duration::ZERO,
            behind: Duration::ZERO,
        }
    }

    /// What it takes the time to be. It never goes back: a host that stands still only falls behind.
    pub(crate) fn clock(&self, now: Duration) -> Duration {
        now + self.ahead - self.behind
    }

    pub(crate) fn is_awake(&self) -> bool {
        self.is_alive && !self.is_frozen
    }

    /// Takes over what a command asks of the store; gives the others back.
    pub(crate) fn ask(&mut self, command: Command) -> Option<Command> {
        let (op, question) = match command {
            Command::Read(op, request) => (op, Question::Read(request)),
            Command::Look(op, request) => (op, Question::Look(request)),
            Command::Mark(op) => (op, Question::Mark),
            Command::Settle(op, rows) => (op, Question::Settle(rows)),
            Command::Change(op, request) => (op, Question::Change(request)),
            Command::Control(op, request) => (op, Question::Control(request)),
            Command::Locks(op, xids) => (op, Question::Locks(xids)),
            other => return Some(other),
        };
        self.statements.push(Statement {
            op,
            question,
            progress: Progress::Sent,
        });
        None
    }

    /// Tells the relay what became of a statement.
    pub(crate) fn tell(&mut self, statement: Statement, now: Duration) {
        let Statement { op, question, progress } = statement;
        let Progress::Done(answer) = progress else {
            unreachable!("only what is done is told")
        };
        let relay = &mut self.relay;
        match answer {
            Answer::Read(answer) => relay.read_done(op, answer, now),
            Answer::Look(answer) => relay.look_done(op, answer, now),
            Answer::Mark(sample) => relay.mark_done(op, sample),
            Answer::Settle(changed) => relay.settle_done(op, changed),
            Answer::Change(answer) => relay.change_done(op, answer, now),
            Answer::Control(answer) => relay.control_done(op, answer, now),
            Answer::Locks(sample, without) => relay.locks_done(op, sample, &without),
            Answer::Lost => relay.store_lost(now),
            Answer::Refused => match question {
                Question::Settle(_) => relay.settle_refused(op, now),
                Question::Change(_) => relay.change_refused(op, now),
                _ => relay.refused(op, now),
            },
        }
    }

    /// Tells the relay the next fact of a producer; what it answers at once.
    pub(crate) fn tell_fact(&mut self, lane: Lane, now: Duration) -> Vec<Command> {
        let mut commands = Vec::new();
        match self.facts[lane as usize].pop_front().expect("a fact waits") {
            Fact::Report(generation, token, result) => {
                self.relay.reported(lane, generation, token, result, now, &mut commands);
            }
            Fact::Failed(generation) => self.relay.producer_failed(lane, generation, "failed", &mut commands),
            Fact::Rebuilt(generation) => self.relay.producer_rebuilt(lane, generation),
        }
        commands
    }
}

/// A command, for people.
pub(crate) fn brief(command: &Command, store: &Store) -> String {
    match command {
        Command::Send {
            lane,
            generation,
            partition,
            event,
            ..
        } => {
            let number = number_of(event.event_id);
            let topic = store.events[number].topic;
            format!(
                "send row {} (event {number}) to {topic}/{partition} by {lane:?} {generation}",
                event.id
            )
        }
        Command::Control(op, request) => {
            format!(
                "control {op} renew {:?} release {:?} acquire {}",
                request.renew, request.release, request.acquire
            )
        }
        Command::Read(op, request) => {
            let asked = |b: &ReadBucket| format!("{}e{}>{}(low {})/{}", b.bucket, b.epoch, b.bound, b.low, b.limit);
            format!(
                "read {op} {:?} floors {:?}",
                request.buckets.iter().map(asked).collect::<Vec<_>>(),
                request.floors
            )
        }
        Command::Look(op, request) => format!(
            "look {op} {:?}",
            request
                .buckets
                .iter()
                .map(|b| (b.bucket, b.epoch, b.after))
                .collect::<Vec<_>>()
        ),
        Command::Settle(op, rows) => format!("settle {op} {:?}", rows.iter().map(|row| row.id).collect::<Vec<_>>()),
        Command::Change(op, request) => {
            format!(
                "change {op} {:?} epoch {}",
                request.rows.iter().map(|row| (row.id, &row.kind)).collect::<Vec<_>>(),
                request.epoch
            )
        }
        other => format!("{other:?}"),
    }
}
