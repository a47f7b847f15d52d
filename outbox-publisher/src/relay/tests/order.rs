//! What keeps the rows of a key in order: alone first, behind what failed, and with one producer at a time.

use super::*;

/// A key whose rows are in the bucket that the suspects of these tests are in.
fn key(prefix: &str) -> String {
    let mut keys = (0..).map(|n| format!("{prefix}-{n}"));
    keys.find(|key| bucket(key) == 1).expect("some key")
}

#[test]
fn first_row_of_a_producer_to_a_partition_goes_alone() {
    // given
    let mut bench = Bench::new();
    for id in 1..=3 {
        bench.write(id, "key");
    }

    // when
    let first = bench.go();

    // then: a broker that refuses the first batch would write those behind it
    assert_eq!(ids(&first), [1]);
    bench.report(first[0], Ok(()));
    assert_eq!(ids(&bench.go()), [2, 3]);
}

#[test]
fn key_stays_with_its_producer_until_all_of_it_is_acknowledged() {
    // given: a refused row is with the probe, and the suspicion ends by a row behind it that fails for good
    let mut bench = Bench::new();
    let key = key("key");
    bench.write(1, &key);
    let first = bench.go();
    bench.report(first[0], REFUSED());
    let probed = bench.go();
    assert_eq!((ids(&probed), probed[0].lane), (vec![1], Lane::Probe));
    bench.write(2, &key);
    bench.fresh[0].headers = Some(vec![0xff]);
    bench.go();
    assert_eq!(bench.failed, [2]);

    // when
    bench.write(3, &key);
    let early = bench.go();

    // then: the main producer has it only once the probe has nothing of the key
    assert_eq!(ids(&early), [0; 0]);
    bench.report(probed[0], Ok(()));
    assert_eq!(ids(&bench.go()), [3]);
}

#[test]
fn followers_of_a_failed_row_wait_for_it() {
    // given: a batch of a bad row and its followers, refused
    let mut bench = Bench::new();
    let key = key("key");
    bench.write(1, &key);
    let first = bench.go();
    bench.report(first[0], Ok(()));
    for id in 2..=4 {
        bench.write(id, &key);
    }
    let batch = bench.go();
    assert_eq!(ids(&batch), [2, 3, 4]);
    bench.report_batch(&batch, REFUSED());

    // when: it is refused alone, which spends an attempt of its own
    let suspect = bench.go();
    assert_eq!(ids(&suspect), [2]);
    bench.report(suspect[0], REFUSED());
    let again = bench.go();

    // then: it is tried again before them, and what waits does so outside of memory
    assert_eq!(ids(&again), [2]);
    assert_eq!(bench.side, [2, 3, 4].into());
    bench.report(again[0], Ok(()));
    assert_eq!(ids(&bench.go()), [3, 4]);
}

#[test]
fn trouble_of_a_topic_spends_no_attempt() {
    // given
    let mut bench = Bench::new();
    bench.write(1, "key");
    for _ in 0..20 {
        // when
        let sent = alone(&mut bench, 1);
        bench.report(sent, Err(SendError::Destination("no room".to_owned())));
    }

    // then
    assert_eq!(bench.relay.take_tally().attempts_failed, 0);
    assert_eq!((bench.changes.len(), bench.failed.len()), (0, 0));
}

/// A broker refuses a batch that is over its topic's limit, whatever the rows in it.
#[test]
fn a_topic_of_a_small_limit_has_rows_one_at_a_time_from_either_producer() {
    // given: rows that fit, of a topic that takes less than a batch
    let mut bench = Bench::new();
    bench.topic = Ok(TopicFacts {
        record_bytes_max: Some(4_000),
        ..FACTS
    });
    for id in 1..=5 {
        bench.write(id, "key");
    }

    // when: the main producer has them, then one is refused, and its followers are parked
    let first = bench.go();
    bench.report(first[0], Ok(()));
    let second = bench.go();
    assert_eq!((ids(&first), ids(&second)), (vec![1], vec![2]));
    bench.report(second[0], REFUSED());
    let suspect = bench.go();
    bench.report(suspect[0], REFUSED());
    let again = bench.go();
    bench.report(again[0], Ok(()));

    // then: so has the one of the side lane
    for id in 3..=5 {
        let sent = bench.go();
        assert_eq!(
            sent.iter().map(|sent| (sent.id, sent.lane)).collect::<Vec<_>>(),
            [(id, Lane::Probe)]
        );
        bench.report(sent[0], Ok(()));
    }
}
