//! A relay on a real store whose commands a test carries out one by one.
//!
//! The clock is the test's, the broker acknowledges at once and writes down the order. Commands of a
//! kind can be held back before they are carried out, and their answers before the relay hears them:
//! so an interleaving that a busy server meets once in a million reads is met each time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{bail, ensure};
use outbox_publisher::config::Config;
use outbox_publisher::domain::event::OutboxEvent;
use outbox_publisher::domain::rules::{Rule, Rules};
use outbox_publisher::domain::topic::{Lane, TopicFacts};
use outbox_publisher::ports::{
    ChangeAnswer, ControlAnswer, LookAnswer, OutboxStore, ReadAnswer, SendError, StoreError,
};
use outbox_publisher::postgres::PostgresStore;
use outbox_publisher::relay::{Command, Op, Relay, RelayConfig};

use crate::outbox::fixture::Outbox;

/// Turns that a wait may take before the test fails.
const TURNS_MAX: usize = 3_000;

/// Kinds of commands that go to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Read,
    Look,
    Mark,
    Settle,
    Change,
    Control,
    Locks,
}

/// What the store said, not yet heard by the relay.
enum Answer {
    Read(ReadAnswer),
    Look(LookAnswer),
    Mark(i64),
    Settled(u64),
    Changed(ChangeAnswer),
    Control(ControlAnswer),
    Locks(i64, Vec<u64>),
    Lost,
}

/// How a mark is made. Only the first is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marks {
    /// By the store: sample, own xid, commit.
    Rightly,
    /// The sample alone: whoever runs above the last completed transaction is not named by a snapshot.
    WithoutOwnTransaction,
}

/// See the module.
pub(crate) struct Rig {
    pub(crate) relay: Relay,
    store: PostgresStore,
    now: Duration,
    marks: Marks,
    believes_idle_settles: bool,
    held: BTreeSet<Kind>,
    commands: BTreeMap<Kind, Command>,
    answers: BTreeMap<Kind, (Op, Answer)>,
    refused: BTreeSet<String>,
    keeps_reports: bool,
    reports: Vec<(Lane, u64, usize)>,
    sent: Vec<String>,
    done: BTreeMap<Kind, usize>,
    swept: u64,
}

impl Rig {
    /// A relay with every rule, which holds all buckets.
    pub(crate) async fn new(outbox: &Outbox) -> anyhow::Result<Self> {
        Self::without(outbox, []).await
    }

    /// A relay without these rules.
    pub(crate) async fn without(outbox: &Outbox, off: impl IntoIterator<Item = Rule>) -> anyhow::Result<Self> {
        let mut rig = Self::waiting(outbox, off).await?;
        rig.unhold(Kind::Read).await?;
        rig.unhold(Kind::Mark).await?;
        Ok(rig)
    }

    /// The same, its first read and its first mark held back.
    pub(crate) async fn waiting(outbox: &Outbox, off: impl IntoIterator<Item = Rule>) -> anyhow::Result<Self> {
        Self::holding(outbox, off, &[Kind::Read, Kind::Mark]).await
    }

    /// A relay without these rules that has taken all buckets, these commands held back.
    pub(crate) async fn holding(
        outbox: &Outbox,
        off: impl IntoIterator<Item = Rule>,
        kinds: &[Kind],
    ) -> anyhow::Result<Self> {
        let mut rig = Self {
            relay: Relay::new(config(), Rules::without(off), 1),
            store: outbox.store(),
            now: Duration::ZERO,
            marks: Marks::Rightly,
            believes_idle_settles: false,
            held: BTreeSet::new(),
            commands: BTreeMap::new(),
            answers: BTreeMap::new(),
            refused: BTreeSet::new(),
            keeps_reports: false,
            reports: Vec::new(),
            sent: Vec::new(),
            done: BTreeMap::new(),
            swept: 0,
        };
        for kind in kinds {
            rig.hold(*kind);
        }
        rig.until("all buckets", |rig| rig.relay.buckets_held() == 64).await?;
        Ok(rig)
    }

    /// Makes marks in another way.
    pub(crate) fn mark(&mut self, marks: Marks) {
        self.marks = marks;
    }

    /// Tells the relay that a settle changed rows also when it changed none.
    pub(crate) fn believe_idle_settles(&mut self) {
        self.believes_idle_settles = true;
    }

    /// The broker refuses the event of this label from now on, or takes it again.
    pub(crate) fn refuse(&mut self, label: &str, is_refused: bool) {
        if is_refused {
            self.refused.insert(label.to_owned());
        } else {
            self.refused.remove(label);
        }
    }

    /// Acknowledgements wait until [`Rig::report`].
    pub(crate) fn keep_reports(&mut self) {
        self.keeps_reports = true;
    }

    /// Gives the relay the acknowledgements that were kept.
    pub(crate) fn report(&mut self) {
        self.keeps_reports = false;
        let mut next = Vec::new();
        for (lane, generation, token) in std::mem::take(&mut self.reports) {
            self.relay
                .reported(lane, generation, token, Ok(()), self.now, &mut next);
        }
        self.take(next);
    }

    /// Labels of what the broker acknowledged, in their order.
    pub(crate) fn sent(&self) -> &[String] {
        &self.sent
    }

    /// Rows that only the sweep found.
    pub(crate) fn swept(&mut self) -> u64 {
        self.swept += self.relay.take_tally().swept;
        self.swept
    }

    /// Commands of this kind are not carried out.
    pub(crate) fn hold(&mut self, kind: Kind) {
        self.held.insert(kind);
    }

    /// Carries out what was held back, and holds no more.
    pub(crate) async fn unhold(&mut self, kind: Kind) -> anyhow::Result<()> {
        self.held.remove(&kind);
        if self.commands.contains_key(&kind) {
            self.carry_out(kind).await?;
        }
        self.answer(kind);
        Ok(())
    }

    /// Turns until the relay has a command of this held kind.
    pub(crate) async fn wants(&mut self, kind: Kind) -> anyhow::Result<()> {
        ensure!(self.held.contains(&kind), "{kind:?} is not held back");
        self.until("a command that is held back", |rig| rig.commands.contains_key(&kind))
            .await
    }

    /// Carries out the command that is held back; the relay does not hear the answer yet.
    pub(crate) async fn carry_out(&mut self, kind: Kind) -> anyhow::Result<()> {
        let Some(command) = self.commands.remove(&kind) else {
            bail!("no {kind:?} is held back");
        };
        let answer = self.ask(command).await?;
        self.answers.insert(kind, answer);
        Ok(())
    }

    /// Gives the relay the answer that was kept from it.
    pub(crate) fn answer(&mut self, kind: Kind) {
        let Some((op, answer)) = self.answers.remove(&kind) else {
            return;
        };
        *self.done.entry(kind).or_default() += 1;
        let (relay, now) = (&mut self.relay, self.now);
        match answer {
            Answer::Read(answer) => relay.read_done(op, answer, now),
            Answer::Look(answer) => relay.look_done(op, answer, now),
            Answer::Mark(sample) => relay.mark_done(op, sample),
            Answer::Settled(changed) => {
                relay.settle_done(op, changed.max(u64::from(self.believes_idle_settles)));
            }
            Answer::Changed(answer) => relay.change_done(op, answer, now),
            Answer::Control(answer) => relay.control_done(op, answer, now),
            Answer::Locks(sample, without) => relay.locks_done(op, sample, &without),
            Answer::Lost => relay.store_lost(now),
        }
    }

    /// One turn: what the relay wants is carried out unless it is held back.
    pub(crate) async fn turn(&mut self) -> anyhow::Result<()> {
        let commands = self.relay.advance(self.now);
        self.take(commands);
        let free: Vec<Kind> = self
            .commands
            .keys()
            .filter(|k| !self.held.contains(k))
            .copied()
            .collect();
        for kind in free {
            // A loss takes back what was asked meanwhile.
            if self.commands.contains_key(&kind) {
                self.carry_out(kind).await?;
                self.answer(kind);
            }
        }
        let pause = self.relay.next_at(self.now).saturating_sub(self.now);
        self.now += pause.clamp(Duration::from_millis(1), Duration::from_millis(20));
        Ok(())
    }

    /// Turns until a condition holds.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        for _ in 0..TURNS_MAX {
            if holds(self) {
                return Ok(());
            }
            self.turn().await?;
        }
        bail!(
            "{TURNS_MAX} turns passed without {what}; sent {:?}, done {:?}, held back {:?}",
            self.sent,
            self.done,
            self.commands.keys()
        )
    }

    /// Turns until so many commands of a kind were carried out from now on.
    pub(crate) async fn more(&mut self, kind: Kind, count: usize) -> anyhow::Result<()> {
        let wanted = self.done(kind) + count;
        self.until(&format!("{count} more of {kind:?}"), |rig| rig.done(kind) >= wanted)
            .await
    }

    /// Turns until all that can be found was found: reads, marks and settles have gone round.
    pub(crate) async fn go_round(&mut self) -> anyhow::Result<()> {
        for _ in 0..3 {
            self.more(Kind::Read, 3).await?;
            self.more(Kind::Look, 1).await?;
        }
        Ok(())
    }

    /// Turns until this label was acknowledged.
    pub(crate) async fn until_sent(&mut self, label: &str) -> anyhow::Result<()> {
        self.until(label, |rig| rig.sent.iter().any(|sent| sent == label)).await
    }

    fn done(&self, kind: Kind) -> usize {
        self.done.get(&kind).copied().unwrap_or_default()
    }

    /// Keeps commands for the store, and does the broker's at once.
    fn take(&mut self, commands: Vec<Command>) {
        let mut next = Vec::new();
        for command in commands {
            let kind = match &command {
                Command::Read(..) => Kind::Read,
                Command::Look(..) => Kind::Look,
                Command::Mark(..) => Kind::Mark,
                Command::Settle(..) => Kind::Settle,
                Command::Change(..) => Kind::Change,
                Command::Control(..) => Kind::Control,
                Command::Locks(..) => Kind::Locks,
                Command::Send {
                    lane,
                    generation,
                    token,
                    event,
                    ..
                } => {
                    let result = self.send(event);
                    if self.keeps_reports && result.is_ok() {
                        self.reports.push((*lane, *generation, *token));
                        continue;
                    }
                    self.relay
                        .reported(*lane, *generation, *token, result, self.now, &mut next);
                    continue;
                }
                Command::Rebuild(lane, generation) => {
                    self.relay.producer_rebuilt(*lane, generation + 1);
                    continue;
                }
                Command::AskTopic(number, _) => {
                    let facts = TopicFacts {
                        partitions: 1,
                        record_bytes_max: Some(1 << 20),
                    };
                    self.relay.topic_known(*number, Ok(facts), self.now);
                    continue;
                }
            };
            self.commands.insert(kind, command);
        }
        if !next.is_empty() {
            self.take(next);
        }
    }

    fn send(&mut self, event: &OutboxEvent) -> Result<(), SendError> {
        let label = String::from_utf8_lossy(event.payload.as_deref().unwrap_or_default());
        if self.refused.contains(&*label) {
            return Err(SendError::Row("the test refuses it".to_owned()));
        }
        self.sent.push(label.into_owned());
        Ok(())
    }

    async fn ask(&mut self, command: Command) -> anyhow::Result<(Op, Answer)> {
        let store = &self.store;
        let (op, answer) = match command {
            Command::Read(op, request) => (op, store.read(request).await.map(Answer::Read)),
            Command::Look(op, request) => (op, store.look(request).await.map(Answer::Look)),
            Command::Mark(op) => match self.marks {
                Marks::Rightly => (op, store.mark().await.map(Answer::Mark)),
                Marks::WithoutOwnTransaction => {
                    let sample = store.locks(Vec::new()).await;
                    (op, sample.map(|(sample, _)| Answer::Mark(sample)))
                }
            },
            Command::Settle(op, rows) => (op, store.settle(rows).await.map(Answer::Settled)),
            Command::Change(op, request) => (op, store.change(request).await.map(Answer::Changed)),
            Command::Control(op, request) => (op, store.control(request).await.map(Answer::Control)),
            Command::Locks(op, xids) => (
                op,
                store
                    .locks(xids)
                    .await
                    .map(|(sample, without)| Answer::Locks(sample, without)),
            ),
            Command::Send { .. } | Command::Rebuild(..) | Command::AskTopic(..) => {
                bail!("not the store's")
            }
        };
        match answer {
            Ok(answer) => Ok((op, answer)),
            Err(StoreError::Lost(_)) => {
                self.commands.clear();
                Ok((op, Answer::Lost))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The publisher's own settings, but leases outlast every test and no sweep hides a loss.
pub(crate) fn config() -> RelayConfig {
    RelayConfig {
        lease: Duration::from_secs(3600),
        sweep_interval: Duration::from_secs(3600),
        poll_max: Duration::from_millis(8),
        ..Config::default().relay()
    }
}
