//! What is broken when, whom it hits and how long it lasts: all of it drawn from one seed.

use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use crate::kinds::Kind;

/// The services, by their place in the crew.
pub(crate) const TRIAGE: [usize; 2] = [0, 1];
/// Likewise.
pub(crate) const PUBLISHERS: [usize; 2] = [2, 3];

/// Longer than the lease and the group's session ([`crate::scene`]), so that whoever is cut off for as long as
/// the upper half of this has lost what it held.
const NETWORK_MS: Range<u64> = 500..4_500;

/// Which direction of a connection a network breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// From services to servers.
    ToServer,
    /// From servers to services: what was asked for is done, and nobody hears of it.
    ToClient,
    /// Both.
    Both,
}

/// One thing that is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// Whom it hits, where it is a service or its network.
    pub(crate) victims: Vec<usize>,
    /// Which broker it hits, where it is one.
    pub(crate) node: usize,
    /// Which direction of the network it hits.
    pub(crate) side: Side,
    /// How long it lasts: until the start of what was killed, until the end of what was frozen or cut off.
    pub(crate) lasts: Duration,
    /// How late packets are.
    pub(crate) delay: Duration,
    /// The stream runs undisturbed for so long before it.
    pub(crate) calm: Duration,
}

/// Draws faults. Kinds come from shuffled decks, so that each comes once before one comes twice.
pub(crate) fn draw(seed: u64, count: usize, nodes: usize, kinds: &[Kind]) -> Vec<Fault> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut deck: Vec<Kind> = Vec::new();
    let mut faults = Vec::with_capacity(count);
    while faults.len() < count && !kinds.is_empty() {
        let kind = deck.pop().unwrap_or_else(|| {
            deck = kinds.to_vec();
            deck.shuffle(&mut random);
            deck.pop().expect("there are kinds")
        });
        faults.push(draw_one(kind, nodes, &mut random));
    }
    faults
}

fn draw_one(kind: Kind, nodes: usize, random: &mut StdRng) -> Fault {
    let victims = match kind {
        Kind::TriageKilled | Kind::TriageFrozen => one_of(&[&[0], &[1]], random),
        Kind::PublisherKilled | Kind::PublisherFrozen | Kind::PublisherLateFrames | Kind::PublisherKilledCutOff => {
            one_of(&[&[2], &[3]], random)
        }
        Kind::KafkaLostAck => PUBLISHERS.to_vec(),
        Kind::KafkaDelayed
        | Kind::KafkaCut
        | Kind::KafkaBlackHole
        | Kind::PostgresDelayed
        | Kind::PostgresCut
        | Kind::PostgresBlackHole => one_of(&[&[0], &[1], &[2], &[3], &TRIAGE, &PUBLISHERS, &[0, 1, 2, 3]], random),
        Kind::BrokerKilled
        | Kind::BrokerFrozen
        | Kind::LeaderMoved
        | Kind::PostgresKilled
        | Kind::PostgresRestarted
        | Kind::PostgresSessionsEnded
        | Kind::PostgresDiskFull => Vec::new(),
    };
    let lasts_ms = match kind {
        Kind::TriageKilled | Kind::PublisherKilled => 0..2_000,
        // Long enough to have something in hand.
        Kind::PublisherLateFrames | Kind::PublisherKilledCutOff => 200..1_500,
        // Beyond the moment at which the other instance has taken over.
        Kind::TriageFrozen | Kind::PublisherFrozen => 0..1_000,
        Kind::BrokerKilled | Kind::LeaderMoved => 0..1_500,
        Kind::BrokerFrozen => 1_000..5_000,
        Kind::PostgresKilled | Kind::PostgresRestarted => 0..1_500,
        Kind::PostgresSessionsEnded => 0..1,
        Kind::PostgresDiskFull => 1_000..3_000,
        Kind::KafkaLostAck => 200..1_500,
        Kind::KafkaDelayed
        | Kind::KafkaCut
        | Kind::KafkaBlackHole
        | Kind::PostgresDelayed
        | Kind::PostgresCut
        | Kind::PostgresBlackHole => NETWORK_MS,
    };
    let mut millis = |range| Duration::from_millis(random.random_range(range));
    let (lasts, delay, calm) = (millis(lasts_ms), millis(5..400), millis(200..1_500));
    Fault {
        kind,
        victims,
        node: random.random_range(0..nodes),
        side: *[Side::ToServer, Side::ToClient, Side::Both]
            .choose(random)
            .expect("there are sides"),
        lasts,
        delay,
        calm,
    }
}

fn one_of(groups: &[&[usize]], random: &mut StdRng) -> Vec<usize> {
    groups.choose(random).expect("there are services").to_vec()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_faults_and_another_seed_others() {
        assert_eq!(draw(7, 50, 3, &Kind::ALL), draw(7, 50, 3, &Kind::ALL));
        assert_ne!(draw(7, 50, 3, &Kind::ALL), draw(8, 50, 3, &Kind::ALL));
    }

    #[test]
    fn a_longer_run_begins_like_a_shorter_one() {
        assert_eq!(draw(7, 50, 1, &Kind::ALL)[..15], draw(7, 15, 1, &Kind::ALL));
    }

    #[test]
    fn every_kind_comes_once_before_one_comes_twice() {
        let kinds = |seed| {
            draw(seed, Kind::ALL.len(), 3, &Kind::ALL)
                .into_iter()
                .map(|fault| fault.kind)
        };
        for seed in 0..50 {
            assert_eq!(kinds(seed).collect::<HashSet<_>>().len(), Kind::ALL.len());
        }
    }

    #[test]
    fn victims_are_of_the_kind_that_the_fault_is_about() {
        for fault in draw(3, 2_000, 3, &Kind::ALL) {
            let is_triage = fault.kind.name().starts_with("triage");
            let is_publisher = fault.kind.name().starts_with("publisher");
            assert!(!is_triage || fault.victims.iter().all(|victim| TRIAGE.contains(victim)));
            assert!(!is_publisher || fault.victims.iter().all(|victim| PUBLISHERS.contains(victim)));
            assert!(fault.node < 3);
        }
    }
}
