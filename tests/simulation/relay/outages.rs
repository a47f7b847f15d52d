//! An hour without the broker and one without the database, with the settings that ship and rows that go on coming.

use std::time::Duration;

use outbox_publisher::config::Config;

use crate::relay::rows::Transaction;
use crate::relay::setup::{Faults, Setup};
use crate::relay::world::World;

const HOUR: Duration = Duration::from_secs(3_600);
/// A row is committed so often.
const ROW_EVERY: Duration = Duration::from_secs(10);
/// After the return, everything is on its topic and settled within so long.
const RECOVERY_MAX: Duration = Duration::from_secs(45);
/// Steps that an hour may take: a loop that does not wait takes millions.
const STEPS_MAX: usize = 3_000_000;

/// Lets time pass, rows come and relays work.
fn live_until(world: &mut World, end: Duration, next_row: &mut Duration) {
    let mut steps = 0;
    while world.now < end {
        if world.now >= *next_row {
            *next_row += ROW_EVERY;
            let key = world.store.transactions.len() % 3;
            world.store.transactions.push(Transaction::new(0, vec![(0, Some(key))]));
        }
        world.step();
        assert_eq!(world.store.broken, None);
        let in_flight: usize = world
            .publishers
            .iter()
            .map(|publisher| publisher.relay.in_flight())
            .sum();
        assert!(
            in_flight <= 2 * world.config.in_flight_max,
            "{in_flight} rows in the producers' hands"
        );
        steps += 1;
        assert!(
            steps < STEPS_MAX,
            "a wait is missing: {steps} steps until {:?}",
            world.now
        );
    }
}

/// How long it takes after the return.
fn an_hour_without(set_away: impl Fn(&mut World, bool)) -> Duration {
    // given two publishers that work
    let setup = Setup {
        publishers: 2,
        keys: 3,
        poison: usize::MAX,
        ..Setup::new(Faults::Processes)
    };
    let mut world = World::new(&setup, 1);
    world.config = Config::default().relay();
    for p in 0..world.publishers.len() {
        world.publishers[p] = world.new_publisher();
    }
    world.settle_down();
    let mut next_row = Duration::ZERO;
    live_until(&mut world, Duration::from_secs(60), &mut next_row);
    let rows_before = world.store.rows.len();

    // when
    set_away(&mut world, true);
    live_until(&mut world, Duration::from_secs(60) + HOUR, &mut next_row);
    set_away(&mut world, false);
    let back_at = world.now;
    while !world.is_at_rest() {
        world.step();
        assert!(
            world.now < back_at + 10 * RECOVERY_MAX,
            "never at rest: {:?}",
            world.verdict()
        );
    }

    // then nothing was lost, put in another order, FAILED, or counted against a row
    assert_eq!(world.verdict(), None);
    assert!(
        world.store.rows.len() > rows_before + 10,
        "rows came meanwhile, or at once after it"
    );
    assert!(world.store.rows.iter().all(|row| row.now.attempts == 0));
    assert_eq!(world.coverage.times("failed"), 0);
    world.now - back_at
}

#[test]
fn an_hour_without_the_broker_costs_no_attempt_and_is_made_up_for_in_seconds() {
    let took = an_hour_without(|world, is_away| world.broker.is_away = is_away);
    println!("recovered in {took:?}");
    assert!(took < RECOVERY_MAX, "{took:?}");
}

#[test]
fn an_hour_without_the_database_costs_no_attempt_and_is_made_up_for_in_seconds() {
    let took = an_hour_without(|world, is_away| world.store.is_away = is_away);
    println!("recovered in {took:?}");
    assert!(took < RECOVERY_MAX, "{took:?}");
}
