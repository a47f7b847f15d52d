//! What writers know of their events, and what follows from it for the order on the topic.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use uuid::Uuid;

/// What a writer knows of its own event.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) event_id: Uuid,
    pub(super) key: usize,
    /// Which transaction, and its how-manieth insert.
    pub(super) transaction: (u64, u64),
    pub(super) place: u32,
    pub(super) inserted_at: Instant,
    /// When the commit was known; `None` if it was rolled back.
    pub(super) committed_at: Option<Instant>,
}

/// What the judge found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) rows: usize,
    pub(super) inverted: usize,
    pub(super) lost: usize,
    pub(super) twice: usize,
    pub(super) uncommitted: usize,
    pub(super) swept: u64,
}

impl Findings {
    /// Whether nothing was broken, and nothing had to be swept up.
    pub(super) fn is_clean(&self) -> bool {
        self.inverted + self.lost + self.twice + self.uncommitted == 0 && self.swept == 0
    }
}

/// Judges an order of event ids by insert and commit times alone.
pub(super) fn judge(written: &[Written], sent: &[Uuid]) -> Findings {
    let mut findings = Findings::default();
    let mut places: HashMap<Uuid, usize> = HashMap::new();
    for (place, id) in sent.iter().enumerate() {
        if places.contains_key(id) {
            findings.twice += 1;
        } else {
            places.insert(*id, place);
        }
    }
    let keys: BTreeSet<usize> = written.iter().map(|event| event.key).collect();
    for key in keys {
        let of_key = written.iter().filter(|event| event.key == key);
        let (mut committed, mut undone) = (Vec::new(), 0);
        for event in of_key {
            match (event.committed_at, places.get(&event.event_id)) {
                (Some(at), Some(place)) => committed.push((event, at, *place)),
                (Some(_), None) => findings.lost += 1,
                (None, Some(_)) => undone += 1,
                (None, None) => {}
            }
        }
        findings.uncommitted += undone;
        findings.rows += committed.len();
        for (a, a_committed, a_place) in &committed {
            for (b, _, b_place) in &committed {
                let is_promised = if a.transaction == b.transaction {
                    a.place < b.place
                } else {
                    *a_committed < b.inserted_at
                };
                findings.inverted += usize::from(is_promised && a_place > b_place);
            }
        }
    }
    findings
}
