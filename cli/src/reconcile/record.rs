//! What is kept of a record: ids, digests, its place. Keys and values stay where they are.

use sha2::{Digest as _, Sha256};
use shared::envelope::Envelope;
use shared::id::EventId;
use uuid::Uuid;

use super::copy::Rows;

/// The first 16 bytes of SHA-256, as the claims have them.
pub type Digest = [u8; 16];

/// A record, as far as anything here needs it.
#[derive(Debug, Clone, Copy)]
pub struct Record<'r> {
    /// Its topic.
    pub topic: &'r str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Option<&'r [u8]>,
    /// Its value.
    pub value: Option<&'r [u8]>,
    /// Value of the last header `event-id`: a writer's own stands before ours.
    pub event_id: Option<&'r [u8]>,
    /// Value of the last header `outbox-id`.
    pub outbox_id: Option<&'r [u8]>,
    /// Whether it has a header that only our publisher writes, whatever is in it.
    pub is_marked: bool,
}

impl Record<'_> {
    /// The id under which the triage service claims it: its event's, or one of the record itself where it has none.
    pub fn claimed_id(&self) -> EventId {
        let envelope = self.value.and_then(|value| Envelope::decode(value).ok());
        match envelope {
            Some(envelope) => EventId::from_text(&envelope.event_id).0,
            None => EventId::of_record(
                self.topic,
                self.partition,
                self.offset,
                self.timestamp,
                self.key,
                self.value,
            ),
        }
    }

    /// The id that consumers deduplicate by.
    pub fn published_id(&self) -> Option<Uuid> {
        Uuid::try_parse(text(self.event_id)?).ok()
    }

    /// The event that the value of a record without our marks says it is.
    fn mentioned_id(&self) -> Option<Uuid> {
        let value = self.value.filter(|_| !self.is_marked)?;
        let envelope = Envelope::decode(value).ok()?;
        Some(EventId::from_text(&envelope.event_id).0.as_uuid())
    }

    /// Adds it as an input record.
    pub fn append_input(&self, rows: &mut Rows) {
        let event_id = self.claimed_id();
        rows.row(6)
            .int(self.partition)
            .bigint(Some(self.offset))
            .uuid(Some(event_id.as_uuid()))
            .int_or_null(event_id.unix_day())
            .bytes(Some(&digest(self.value.unwrap_or_default())))
            .bigint(self.timestamp);
    }

    /// Adds it as a record of the output topic with this number.
    pub fn append_output(&self, topic: i32, rows: &mut Rows) {
        let outbox_id = text(self.outbox_id).and_then(|id| id.parse().ok());
        rows.row(10)
            .int(topic)
            .int(self.partition)
            .bigint(Some(self.offset))
            .uuid(self.published_id())
            .bigint(outbox_id)
            .bytes(self.key.map(digest).as_ref().map(|digest| &digest[..]))
            .bytes(self.value.map(digest).as_ref().map(|digest| &digest[..]))
            .bigint(self.timestamp)
            .boolean(self.is_marked)
            .uuid(self.mentioned_id());
    }
}

/// Whether only our publisher writes a header of this name. An event id may be anybody's: consumers ask for one.
pub fn is_mark(header: &str) -> bool {
    ["outbox-id", "outbox-epoch"]
        .iter()
        .any(|mark| header.eq_ignore_ascii_case(mark))
}

fn text(header: Option<&[u8]>) -> Option<&str> {
    std::str::from_utf8(header?).ok()
}

fn digest(bytes: &[u8]) -> Digest {
    let whole: [u8; 32] = Sha256::digest(bytes).into();
    *whole.first_chunk().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: Option<&[u8]>) -> Record<'_> {
        Record {
            topic: "t",
            partition: 1,
            offset: 2,
            timestamp: Some(3),
            key: None,
            value,
            event_id: None,
            outbox_id: None,
            is_marked: false,
        }
    }

    #[test]
    fn an_event_is_claimed_under_its_own_id_and_what_is_none_under_its_record() {
        let id = "0e4f6a2b-3c1d-4e5f-8a9b-0c1d2e3f4a5b";
        let value = format!(r#"{{"eventId":"{id}","eventType":"t","occurredAt":1,"payload":{{}}}}"#);
        let whole = record(Some(value.as_bytes()));
        assert_eq!(whole.claimed_id().to_string(), id);
        let cut = record(Some(&value.as_bytes()[..60])); // an id can be seen in it
        let of_record = EventId::of_record("t", 1, 2, Some(3), None, cut.value);
        assert_eq!(cut.claimed_id(), of_record);
        assert_eq!(
            record(None).claimed_id(),
            EventId::of_record("t", 1, 2, Some(3), None, None)
        );
    }

    #[test]
    fn only_a_record_without_our_marks_is_asked_which_event_it_is() {
        let id = Uuid::from_u128(7);
        let value = format!(r#"{{"eventId":"{id}","eventType":"t","occurredAt":1,"payload":{{}}}}"#);
        let mut foreign = record(Some(value.as_bytes()));
        assert_eq!(foreign.mentioned_id(), Some(id));
        foreign.is_marked = true;
        assert_eq!(foreign.mentioned_id(), None);
        assert!(is_mark("outbox-id") && is_mark("Outbox-Epoch") && !is_mark("event-id"));
    }

    #[test]
    fn an_event_id_that_is_none_names_nobody() {
        let mut foreign = record(None);
        for header in [None, Some(&b"\xff"[..]), Some(b"42")] {
            foreign.event_id = header;
            assert_eq!(foreign.published_id(), None);
        }
    }
}
