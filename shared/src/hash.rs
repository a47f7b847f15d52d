//! Where a key belongs: Kafka's partition, our bucket, our lane.
//!
//! All three rest on Kafka's murmur2, so that a Java producer with the same key meets the same
//! partition. The results are fixed for ever: another hash would put one key under two owners. The
//! database has the same functions (`kafka_murmur2`, `outbox_bucket`, `outbox_lane_hash`).

use uuid::Uuid;

/// How many hash slots the outbox has.
pub const BUCKETS: i16 = 64;

/// Kafka's 32-bit murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`).
pub fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("chunks of four")).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)) as i32
}

/// The hash slot of an outbox row. A null key takes the slot of its event id: it promises no order.
pub fn bucket_of(key: Option<&[u8]>, event_id: Uuid) -> i16 {
    let hash = murmur2(key.unwrap_or(event_id.as_bytes()));
    ((hash & 0x7fff_ffff) % i32::from(BUCKETS)) as i16
}

/// Names a (topic, key) in four bytes, for the index of the side lane.
///
/// Two pairs may share a hash; whoever uses it compares topic and key as well.
pub fn lane_hash(topic: &str, key: Option<&[u8]>, event_id: Uuid) -> i32 {
    let key = key.unwrap_or(event_id.as_bytes());
    let mut named = Vec::with_capacity(topic.len() + 1 + key.len());
    named.extend_from_slice(topic.as_bytes());
    named.push(0);
    named.extend_from_slice(key);
    murmur2(&named)
}

/// The Kafka partition of a record, as Java's default partitioner computes it for keyed records.
///
/// Records without a key are spread by their event id.
///
/// # Panics
/// If `partitions` is not positive.
pub fn partition_of(key: Option<&[u8]>, event_id: Uuid, partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has at least one partition");
    (murmur2(key.unwrap_or(event_id.as_bytes())) & 0x7fff_ffff) % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own test (`UtilsTest.testMurmur2`).
    #[test]
    fn murmur2_agrees_with_kafka() {
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()), hash, "{text}");
        }
    }

    /// Written down once: a change here moves keys between owners.
    #[test]
    fn buckets_are_fixed_for_ever() {
        let id = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(bucket_of(Some(b"k"), id), 32);
        assert_eq!(
            bucket_of(Some(b"21"), id),
            ((-973_932_308_i32 & 0x7fff_ffff) % 64) as i16
        );
        assert_eq!(bucket_of(None, id), bucket_of(Some(id.as_bytes()), id));
        assert_ne!(lane_hash("a", Some(b"k"), id), lane_hash("b", Some(b"k"), id));
    }
}
