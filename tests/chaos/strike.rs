//! Breaking one thing, and the time until work goes on.
//!
//! The time to recover begins where the fault ends: with the network's return, with the server's first answer,
//! with SIGCONT. Where the rest of the system is to go on without the victim (a killed or frozen service, a node
//! of three) it begins with the strike. It ends when a round of [`Probes`], sent then, has come out. What was
//! away for a time and comes back into the midst of its successors' work is probed twice, and the longer time
//! counts.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::kafka::Node;
use harness::postgres::Stop;
use harness::proxy::{Flow, Proxy};
use harness::wait::{self, Seen};

use crate::crew::Crew;
use crate::disk::Disk;
use crate::kinds::Kind;
use crate::plan::{Fault, Side};
use crate::probes::Probes;
use crate::scene::Scene;

/// How long a broken thing may take to come back, and a fault to show an effect.
const CHANGE_WITHIN: Duration = Duration::from_secs(60);

/// Everything that a fault may touch.
pub(crate) struct Target<'t> {
    pub(crate) scene: &'t Scene<'t>,
    pub(crate) crew: &'t Crew,
    pub(crate) probes: &'t mut Probes,
    /// The disk of Postgres, where it is one of our own.
    pub(crate) disk: Option<&'t Disk>,
}

impl Target<'_> {
    /// Breaks what the fault says and returns the time to recover.
    pub(crate) async fn strike(&mut self, fault: &Fault) -> anyhow::Result<Duration> {
        match fault.kind {
            Kind::TriageKilled | Kind::PublisherKilled => self.kill(fault).await,
            Kind::TriageFrozen | Kind::PublisherFrozen => self.freeze(fault).await,
            Kind::PublisherLateFrames => self.kill_with_frames_held(fault).await,
            Kind::PublisherKilledCutOff => self.kill_cut_off(fault).await,
            Kind::BrokerKilled | Kind::BrokerFrozen | Kind::LeaderMoved => self.strike_broker(fault).await,
            Kind::PostgresKilled => self.restart_postgres(fault, Stop::Kill).await,
            Kind::PostgresRestarted => self.restart_postgres(fault, Stop::Fast).await,
            Kind::PostgresSessionsEnded => {
                for application in ["triage-service%", "outbox-publisher%"] {
                    let ended = self.scene.postgres.terminate_sessions(application).await?;
                    ensure!(ended > 0, "no session of {application} was there to be ended");
                }
                self.probe(fault, Instant::now()).await
            }
            Kind::PostgresDiskFull => self.fill_disk(fault).await,
            Kind::KafkaLostAck => self.lose_answers(fault).await,
            Kind::KafkaDelayed
            | Kind::KafkaCut
            | Kind::KafkaBlackHole
            | Kind::PostgresDelayed
            | Kind::PostgresCut
            | Kind::PostgresBlackHole => self.break_network(fault).await,
        }
    }

    async fn probe(&mut self, fault: &Fault, since: Instant) -> anyhow::Result<Duration> {
        self.probes.go_through(since, fault.kind.recovery_max()).await
    }

    async fn kill(&mut self, fault: &Fault) -> anyhow::Result<Duration> {
        let victim = victim_of(fault)?;
        self.crew.until_it_owns_some(victim).await?;
        self.crew.kill(victim)?;
        let struck = Instant::now();
        let (crew, lasts) = (self.crew, fault.lasts);
        let back = async {
            tokio::time::sleep(lasts).await; // whoever restarts it takes a while
            crew.enter(victim).await
        };
        let (recovery, entered) = tokio::join!(self.probes.go_through(struck, fault.kind.recovery_max()), back);
        entered?;
        let recovery = recovery?;
        self.crew.ready(victim).await?;
        Ok(recovery)
    }

    async fn freeze(&mut self, fault: &Fault) -> anyhow::Result<Duration> {
        self.crew.until_it_owns_some(victim_of(fault)?).await?;
        let victim = self.crew.running(victim_of(fault)?)?;
        victim.freeze()?;
        let taken_over = self.probe(fault, Instant::now()).await;
        tokio::time::sleep(fault.lasts).await; // its successor has work of its own in hand by now
        victim.thaw()?;
        let taken_over = taken_over.context("while it stood still")?;
        Ok(taken_over.max(self.probe(fault, Instant::now()).await?))
    }

    /// Its last requests reach the broker only when its successor has sent the same rows.
    async fn kill_with_frames_held(&mut self, fault: &Fault) -> anyhow::Result<Duration> {
        let victim = victim_of(fault)?;
        self.crew.until_it_owns_some(victim).await?;
        let network = &self.scene.networks[victim].kafka;
        network.hold_produce(true);
        let held = wait::until("requests to be held", CHANGE_WITHIN, || async {
            Ok(Seen::when(network.held(), |held| *held > 0))
        });
        held.await?;
        tokio::time::sleep(fault.lasts).await; // more of them
        self.crew.kill(victim)?;
        let taken_over = self.probe(fault, Instant::now()).await?;
        network.hold_produce(false);
        network.release_held();
        let released = Instant::now();
        self.crew.enter(victim).await?;
        let recovery = taken_over.max(self.probe(fault, released).await?);
        self.crew.ready(victim).await?;
        Ok(recovery)
    }

    /// It may have what it is allowed to have in flight, and dies with it.
    async fn kill_cut_off(&mut self, fault: &Fault) -> anyhow::Result<Duration> {
        let victim = victim_of(fault)?;
        self.crew.until_it_owns_some(victim).await?;
        let network = &self.scene.networks[victim].kafka;
        flow(network, fault.side, Flow::BlackHole);
        tokio::time::sleep(fault.lasts).await; // a fault has a length, and no condition
        self.crew.kill(victim)?;
        let taken_over = self.probe(fault, Instant::now()).await;
        network.both(Flow::Pass);
        let back = Instant::now();
        self.crew.enter(victim).await?;
        let recovery = taken_over?.max(self.probe(fault, back).await?);
        self.crew.ready(victim).await?;
        Ok(recovery)
    }

    async fn strike_broker(&mut self, fault: &Fault) -> anyhow::Result<Duration> {
        let nodes = self.scene.kafka.nodes();
        let node = &nodes[fault.node];
        match fault.kind {
            Kind::BrokerFrozen => node.freeze().await?,
            Kind::LeaderMoved => node.stop().await?,
            _ => node.kill().await?,
        }
        let struck = Instant::now();
        // Two nodes of three go on; one node alone has nobody.
        let alone = match nodes.len() {
            1 => Ok(Duration::ZERO),
            _ => self.probe(fault, struck).await,
        };
        tokio::time::sleep(fault.lasts).await; // a fault has a length, and no condition
        let back = Instant::now();
        bring_back(node, fault.kind).await?;
        let answers = if fault.kind == Kind::BrokerFrozen {
            back
        } else {
            Instant::now()
        };
        let recovery = alone?.max(self.probe(fault, answers).await?);
        if nodes.len() > 1 {
            self.scene.until_in_sync(CHANGE_WITHIN).await?;
        }
        Ok(recovery)
    }

    async fn restart_postgres(&mut self, fault: &Fault, how: Stop) -> anyhow::Result<Duration> {
        self.scene.postgres.stop(how).await?;
        tokio::time::sleep(fault.lasts).await; // a fault has a length, and no condition
        self.scene.postgres.start().await?;
        self.probe(fault, Instant::now()).await
    }

    async fn fill_disk(&mut self, fault: &Fault) -> anyhow::Result<Duration> {
        let disk = self.disk.context("the plan has this only with a disk of our own")?;
        let refused = || {
            let log = std::fs::read_to_string(self.scene.postgres.log())?;
            Ok::<_, anyhow::Error>(log.matches("No space left on device").count())
        };
        let before = refused()?;
        let filled = disk.fill()?;
        tokio::time::sleep(fault.lasts).await; // a fault has a length, and no condition
        let felt = wait::until("a statement to be refused for want of room", CHANGE_WITHIN, || async {
            Ok(Seen::when(refused()?, |now| *now > before))
        });
        felt.await?;
        drop(filled);
        self.probe(fault, Instant::now()).await
    }

    /// Answers to Produce are swallowed, after the broker has written what they are about.
    async fn lose_answers(&mut self, fault: &Fault) -> anyhow::Result<Duration> {
        let networks: Vec<&Proxy> = fault
            .victims
            .iter()
            .map(|place| &self.scene.networks[*place].kafka)
            .collect();
        let swallowed = || networks.iter().map(|network| network.swallowed()).sum::<u64>();
        let before = swallowed();
        for network in &networks {
            network.swallow_each_produce_answer(1);
        }
        tokio::time::sleep(fault.lasts).await; // a fault has a length, and no condition
        let lost = wait::until("an answer to be lost", CHANGE_WITHIN, || async {
            Ok(Seen::when(swallowed(), |now| *now > before))
        });
        let lost = lost.await;
        for network in &networks {
            network.swallow_each_produce_answer(0);
        }
        lost?;
        self.probe(fault, Instant::now()).await
    }

    async fn break_network(&mut self, fault: &Fault) -> anyhow::Result<Duration> {
        let is_kafka = fault.kind.name().starts_with("kafka");
        let networks: Vec<&Proxy> = fault
            .victims
            .iter()
            .map(|place| &self.scene.networks[*place])
            .map(|networks| if is_kafka { &networks.kafka } else { &networks.postgres })
            .collect();
        for network in &networks {
            match fault.kind {
                Kind::KafkaDelayed | Kind::PostgresDelayed => flow(network, fault.side, Flow::Delay(fault.delay)),
                Kind::KafkaCut | Kind::PostgresCut => network.refuse(true),
                _ => flow(network, fault.side, Flow::BlackHole),
            }
        }
        tokio::time::sleep(fault.lasts).await; // a fault has a length, and no condition
        for network in &networks {
            network.refuse(false);
            network.both(Flow::Pass);
        }
        self.probe(fault, Instant::now()).await
    }
}

/// Starts or thaws a node and waits until it answers.
async fn bring_back(node: &Node, kind: Kind) -> anyhow::Result<()> {
    if kind == Kind::BrokerFrozen {
        node.thaw().await
    } else {
        node.start().await
    }
}

fn flow(network: &Proxy, side: Side, flow: Flow) {
    match side {
        Side::ToServer => network.to_server(flow),
        Side::ToClient => network.to_client(flow),
        Side::Both => network.both(flow),
    }
}

fn victim_of(fault: &Fault) -> anyhow::Result<usize> {
    fault.victims.first().copied().context("the fault has a victim")
}
