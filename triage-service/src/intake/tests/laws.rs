//! Laws over many random streams.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use crate::domain::case::{Accepted, Reading};
use crate::domain::record::Record;

use super::super::safeguards::Safeguards;
use super::store::Store;
use super::transaction::drive;
use super::{event, record, triage};

/// What a record of the stream is: (kind, id).
fn stream() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((0u8..8, 0u8..6), 1..40)
}

fn build(stream: &[(u8, u8)]) -> Vec<Record> {
    let build = |(offset, &(kind, id)): (usize, &(u8, u8))| {
        let (offset, id) = (offset as i64, format!("id-{id}"));
        match kind {
            0 => record(0, offset, None),
            1 => record(0, offset, Some(format!(r#"{{"eventId":"{id}"}}"#))),
            2 => event(0, offset, &id, "boom"),
            3 => event(0, offset, &id, "poison"),
            4 => event(0, offset, &id, &format!("another body {offset}")),
            _ => event(0, offset, &id, "hello"),
        }
    };
    stream.iter().enumerate().map(build).collect()
}

proptest! {
    #[test]
    fn every_record_is_decided_or_set_aside_or_a_duplicate(stream in stream()) {
        let records = build(&stream);
        let store = Store::refusing("poison");
        let (tallies, stored) = drive(&store, &triage(Safeguards::default()), Safeguards::default(), records.clone());
        let decided: usize = tallies.iter().map(|tally| tally.decisions.len()).sum();
        let set_aside: usize = tallies.iter().map(|tally| tally.dead_letters.len()).sum();
        let duplicates: usize = tallies.iter().map(|tally| tally.duplicates).sum();
        prop_assert_eq!(decided + set_aside + duplicates, records.len());
        prop_assert_eq!(stored, records.len() as i64);

        let rows = store.rows();
        prop_assert_eq!(rows.events.len(), decided + set_aside);
        let ids: HashSet<_> = rows.decisions.iter().map(|row| row.event_id).collect();
        prop_assert_eq!(ids.len(), rows.decisions.len(), "an event is decided once");
        let outbox_ids: HashSet<_> = rows.events.iter().map(|event| event.event_id).collect();
        prop_assert_eq!(outbox_ids.len(), rows.events.len(), "no two rows share an event id");
        let offsets: Vec<i64> = rows.events.iter().map(|event| event.source.offset).collect();
        prop_assert!(offsets.is_sorted(), "outcomes follow the offsets: {:?}", offsets);

        // A good event is decided, whatever came before it under its id.
        let good: HashMap<_, _> = records.iter().zip(&stream).filter(|(_, (kind, _))| *kind >= 4)
            .map(|(record, _)| (Reading::of(record, &Accepted::default()).event_id, record)).collect();
        for id in good.keys() {
            prop_assert!(ids.contains(id));
        }
    }

    #[test]
    fn the_same_stream_again_changes_nothing(stream in stream()) {
        let records = build(&stream);
        let store = Store::refusing("poison");
        let triage = triage(Safeguards::default());
        drive(&store, &triage, Safeguards::default(), records.clone());
        let before = store.rows().decisions.len();
        let (_, stored) = drive(&store, &triage, Safeguards::default(), records.clone());
        prop_assert_eq!(store.rows().decisions.len(), before);
        prop_assert_eq!(stored, records.len() as i64);
    }
}

#[cfg(feature = "testing")]
mod without {
    use super::super::super::safeguards::Safeguard;
    use super::*;

    fn decided(safeguards: Safeguards) -> usize {
        let store = Store::refusing("poison");
        drive(
            &store,
            &triage(safeguards),
            safeguards,
            vec![event(0, 0, "x", "poison"), event(0, 1, "x", "good")],
        );
        store.rows().decisions.len()
    }

    #[test]
    fn duplicates_taken_out_once_per_batch_lose_the_good_second() {
        assert_eq!(decided(Safeguards::default()), 1);
        assert_eq!(
            decided(Safeguards::default().without(Safeguard::DedupePerTransaction)),
            0
        );
    }

    #[test]
    fn without_the_way_back_a_corrected_resend_is_swallowed() {
        assert_eq!(decided(Safeguards::default().without(Safeguard::WayBack)), 0);
    }
}
