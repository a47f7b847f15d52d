//! Ids of events: as they were sent, or derived so that the same cause always has the same id.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid, Version};

/// Names ids derived from an id that is text but no UUID. Fixed for ever: claims stand on it.
pub const NAMESPACE_EVENT: Uuid = Uuid::from_u128(0x8d0c_5c64_2f3e_5a0b_9a57_33c1_6d1b_7e41);

/// Names ids derived from a record without a usable id. Fixed for ever, as [`NAMESPACE_EVENT`].
pub const NAMESPACE_RECORD: Uuid = Uuid::from_u128(0x1f7b_91a4_7c0d_5d52_b3c8_0e6a_94f2_5b17);

const MILLIS_PER_DAY: u64 = 86_400_000;

/// What makes two deliveries the same event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(Uuid);

impl EventId {
    /// An id of now, for an event that is born here. Version 7, so that ids of a time lie together.
    #[expect(
        clippy::new_without_default,
        reason = "each call gives another id; a default would hide that"
    )]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Takes a UUID as it is.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The UUID, for columns of that type.
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }

    /// The id that `text` stands for, and whether it had to be derived because it is no UUID.
    ///
    /// Every spelling of a UUID (case, hyphens, braces, urn) is one id. A derived id is the UUIDv5
    /// of the text as it was written; the text itself is kept beside the claim.
    pub fn from_text(text: &str) -> (Self, bool) {
        match Uuid::try_parse(text) {
            Ok(uuid) => (Self(uuid), false),
            Err(_) => (Self(Uuid::new_v5(&NAMESPACE_EVENT, text.as_bytes())), true),
        }
    }

    /// The id of a record that has none of its own: of where it lies and what it holds.
    ///
    /// Coordinates alone would give the records of a topic that was made again the ids of its
    /// predecessor. Absent and empty differ, in the timestamp, the key and the value.
    pub fn of_record(
        topic: &str,
        partition: i32,
        offset: i64,
        timestamp_ms: Option<i64>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Self {
        let mut body = Sha256::new();
        append(&mut body, key);
        append(&mut body, value);

        let mut name = Vec::with_capacity(topic.len() + 62);
        name.extend_from_slice(topic.as_bytes());
        name.push(0); // no topic name holds a NUL, so the fields after it cannot be mistaken for it
        name.extend_from_slice(&partition.to_be_bytes());
        name.extend_from_slice(&offset.to_be_bytes());
        name.push(u8::from(timestamp_ms.is_some()));
        name.extend_from_slice(&timestamp_ms.unwrap_or_default().to_be_bytes());
        name.extend_from_slice(&body.finalize());
        Self(Uuid::new_v5(&NAMESPACE_RECORD, &name))
    }

    /// The id of what `consumer` makes of this event for `purpose` (a decision, its outcome event).
    ///
    /// A pure function: deciding the same event again gives the same ids. The 48-bit time of a
    /// version 7 id is kept, so that what belongs together lies together; an id of another version
    /// gives version 8.
    pub fn derive(self, consumer: &str, purpose: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(purpose.as_bytes());
        hash.update([0]);
        hash.update(consumer.as_bytes());
        hash.update([0]);
        hash.update(self.0.as_bytes());
        let digest = hash.finalize();

        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        let version = if self.is_v7() {
            bytes[..6].copy_from_slice(&self.0.as_bytes()[..6]);
            Version::SortRand
        } else {
            Version::Custom
        };
        Self(
            Builder::from_bytes(bytes)
                .with_variant(uuid::Variant::RFC4122)
                .with_version(version)
                .into_uuid(),
        )
    }

    /// The day inside a version 7 id, counted from 1970-01-01; `None` for every other version.
    pub fn unix_day(self) -> Option<i32> {
        if !self.is_v7() {
            return None;
        }
        let millis = self.0.as_bytes()[..6]
            .iter()
            .fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
        i32::try_from(millis / MILLIS_PER_DAY).ok()
    }

    fn is_v7(self) -> bool {
        self.0.get_variant() == uuid::Variant::RFC4122 && self.0.get_version() == Some(Version::SortRand)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({})", self.0)
    }
}

impl From<Uuid> for EventId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

/// Adds one field to a digest such that no two lists of fields look alike.
fn append(hash: &mut Sha256, field: Option<&[u8]>) {
    match field {
        None => hash.update([0]),
        Some(bytes) => {
            hash.update([1]);
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V4: &str = "0e4f6a2b-3c1d-4e5f-8a9b-0c1d2e3f4a5b";

    #[test]
    fn every_spelling_of_a_uuid_is_one_id() {
        let (plain, derived) = EventId::from_text(V4);
        assert!(!derived);
        for spelling in [
            V4.to_uppercase(),
            V4.replace('-', ""),
            format!("{{{V4}}}"),
            format!("urn:uuid:{V4}"),
        ] {
            assert_eq!(EventId::from_text(&spelling), (plain, false), "{spelling}");
        }
    }

    #[test]
    fn an_id_that_is_no_uuid_is_derived_and_stays_the_same_for_ever() {
        let (id, derived) = EventId::from_text("order-4711");
        assert!(derived);
        assert_eq!(id.as_uuid().get_version(), Some(Version::Sha1));
        assert_eq!(id.to_string(), "92e25671-04bb-575d-b0f2-0827c8be9851");
    }

    #[test]
    fn the_id_of_a_record_stays_the_same_for_ever() {
        let id = EventId::of_record("orders", 3, 42, Some(1_763_678_412_000), Some(b"k"), Some(b"v"));
        assert_eq!(id.to_string(), "e0ebeec0-748c-5c2e-8cf8-965c34f3eaf7");
    }

    #[test]
    fn absent_and_empty_parts_of_a_record_are_different_records() {
        let of = |timestamp, key, value| EventId::of_record("t", 0, 0, timestamp, key, value);
        let ids = [
            of(None, None, None),
            of(Some(0), None, None),
            of(None, Some(&b""[..]), None),
            of(None, None, Some(&b""[..])),
            of(None, Some(&b"a"[..]), Some(&b"b"[..])),
            of(None, Some(&b"ab"[..]), Some(&b""[..])),
        ];
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }

    #[test]
    fn derived_ids_stay_the_same_for_ever() {
        let v7 = EventId::from_text("019a9b2f-5c00-7abc-8def-0123456789ab").0;
        assert_eq!(
            v7.derive("triage", "decision").to_string(),
            "019a9b2f-5c00-7cc1-b184-eaf94c85b224"
        );
        assert_eq!(
            EventId::from_text(V4).0.derive("triage", "decision").to_string(),
            "3642649c-1d5f-8a9e-b0c2-7e0afbd13175"
        );
    }

    proptest! {
        #[test]
        fn a_derived_id_keeps_the_day_and_differs_by_purpose_and_consumer(bits: u128, millis in 0u64..(1 << 48)) {
            let v7 = Builder::from_unix_timestamp_millis(millis, &bits.to_be_bytes()[..10].try_into().expect("ten bytes"));
            let id = EventId::from_uuid(v7.into_uuid());
            let decision = id.derive("triage", "decision");
            prop_assert_eq!(decision, id.derive("triage", "decision"));
            prop_assert_eq!(decision.unix_day(), id.unix_day());
            prop_assert_eq!(decision.as_uuid().as_bytes()[..6].to_vec(), id.as_uuid().as_bytes()[..6].to_vec());
            prop_assert_ne!(decision, id);
            prop_assert_ne!(decision, id.derive("triage", "outcome"));
            prop_assert_ne!(decision, id.derive("other", "decision"));
        }

        #[test]
        fn an_id_of_another_version_derives_version_8_without_a_day(bits: u128) {
            let id = EventId::from_uuid(Builder::from_random_bytes(bits.to_be_bytes()).into_uuid());
            let derived = id.derive("triage", "decision");
            prop_assert_eq!(derived.as_uuid().get_version(), Some(Version::Custom));
            prop_assert_eq!(derived.unix_day(), None);
            prop_assert_eq!(id.unix_day(), None);
        }

        #[test]
        fn unix_day_is_the_day_of_the_time_inside(millis in 0u64..(1 << 47)) {
            let id = Builder::from_unix_timestamp_millis(millis, &[7; 10]).into_uuid();
            prop_assert_eq!(EventId::from_uuid(id).unix_day(), i32::try_from(millis / MILLIS_PER_DAY).ok());
        }
    }
}
