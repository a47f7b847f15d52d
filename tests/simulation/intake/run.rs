//! A run from its seed to its verdict.

use crate::intake::setup::Setup;
use crate::intake::world::World;
use crate::runs::Outcome;

/// Steps after which a run that has not come to rest never will.
const QUIET_STEPS_MAX: usize = 20_000;

/// Runs one seed.
pub(crate) fn run(setup: &Setup, seed: u64, is_traced: bool) -> Outcome {
    let mut world = World::new(setup, seed);
    world.trace = is_traced.then(Vec::new);
    let entries: Vec<_> = world
        .partitions
        .iter()
        .flat_map(|partition| partition.log.clone())
        .collect();
    for entry in entries {
        world.log(|_| {
            format!(
                "{} {:?} key {} id {:?}",
                entry.record.at,
                entry.kind,
                entry.key,
                entry.id.as_uuid()
            )
        });
    }
    let broken = world.live();
    world.coverage.merge(&world.store.lock().coverage);
    Outcome {
        broken,
        coverage: world.coverage,
        trace: world.trace.unwrap_or_default(),
        faults: world.faults,
        rows: world.rows_drawn,
    }
}

impl World {
    fn live(&mut self) -> Option<String> {
        let loud_steps = 100 + self.chance.below(900);
        for _ in 0..loud_steps {
            if self.setup.left_out.ends_at(self.store.lock().now) {
                break;
            }
            let can_go_on = self.step();
            if !can_go_on || self.is_broken() {
                break;
            }
        }
        self.log(|_| "-- quiet".to_owned());
        self.is_quiet = true;
        self.is_broker_away = false;
        self.store.lock().is_away = false;
        for _ in 0..QUIET_STEPS_MAX {
            if self.is_broken() || self.is_at_rest() || !self.step() {
                break;
            }
        }
        let (is_at_rest, store) = (self.is_at_rest(), self.store.lock());
        if store.judge.broken.is_some() {
            return store.judge.broken.clone();
        }
        if !is_at_rest {
            let offsets: Vec<_> = self
                .partitions
                .iter()
                .map(|partition| (partition.committed, partition.end()))
                .collect();
            return Some(format!("STUCK: offsets and ends are {offsets:?}"));
        }
        store.judge.verdict()
    }

    fn is_broken(&self) -> bool {
        self.store.lock().judge.broken.is_some()
    }

    fn is_at_rest(&self) -> bool {
        self.partitions
            .iter()
            .all(|partition| partition.committed == partition.end())
            && self.members.iter().all(|member| member.is_at_rest())
            && self.store.lock().open_ones().next().is_none()
    }
}
