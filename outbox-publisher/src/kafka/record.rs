//! The record that an outbox event becomes.

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use shared::headers::Headers;

use crate::domain::event::OutboxEvent;
use crate::ports::Outgoing;

/// Headers that the publisher adds.
const OWN_HEADERS: usize = 7;

/// The record, its token as the client's opaque value.
pub(super) fn of(row: &Outgoing) -> BaseRecord<'_, [u8], [u8], usize> {
    let event = &*row.event;
    let mut record = BaseRecord::with_opaque_to(&event.topic, row.token)
        .partition(row.partition)
        .headers(headers(event, row.epoch));
    if let Some(key) = &event.key {
        record = record.key(key.as_slice());
    }
    if let Some(payload) = &event.payload {
        record = record.payload(payload.as_slice());
    }
    record
}

fn headers(event: &OutboxEvent, epoch: i64) -> OwnedHeaders {
    // They could be read when the row was checked.
    let own = event
        .headers
        .as_deref()
        .and_then(|stored| Headers::decode(stored).ok())
        .unwrap_or_default();
    let mut headers = OwnedHeaders::new_with_capacity(own.len() + OWN_HEADERS);
    for (key, value) in own.iter() {
        headers = headers.insert(Header { key, value });
    }
    let mut add = |key: &str, value: &str| {
        let so_far = std::mem::take(&mut headers);
        headers = so_far.insert(Header {
            key,
            value: Some(value),
        });
    };
    add(
        "event-id",
        event
            .event_id
            .hyphenated()
            .encode_lower(&mut uuid::Uuid::encode_buffer()),
    );
    add("event-type", &event.event_type);
    add("content-type", &event.content_type);
    add("outbox-id", &event.id.to_string());
    add("outbox-epoch", &epoch.to_string());
    if let Some(traceparent) = &event.traceparent {
        add("traceparent", traceparent);
    }
    if let Some(tracestate) = &event.tracestate {
        add("tracestate", tracestate);
    }
    headers
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rdkafka::message::Headers as _;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_writers_headers_stand_before_ours() {
        let mut own = Headers::new();
        own.push("dlt-reason", Some("UNDECODABLE"));
        own.push("empty", None::<Vec<u8>>);
        let event = OutboxEvent {
            id: 7,
            bucket: 0,
            lane_hash: 0,
            event_id: Uuid::nil(),
            attempts: 0,
            topic: "t".into(),
            key: Some(b"k".to_vec()),
            event_type: "type".into(),
            content_type: "application/json".into(),
            payload: None,
            headers: own.encode(),
            traceparent: Some("00-1-2-01".into()),
            tracestate: None,
        };
        let row = Outgoing {
            token: 3,
            partition: 1,
            epoch: 9,
            event: Arc::new(event),
        };
        let record = of(&row);
        let headers = record.headers.as_ref().expect("headers");
        let shown: Vec<String> = headers
            .iter()
            .map(|h| format!("{}={}", h.key, h.value.map_or("null".into(), String::from_utf8_lossy)))
            .collect();
        assert_eq!(
            shown,
            [
                "dlt-reason=UNDECODABLE",
                "empty=null",
                "event-id=00000000-0000-0000-0000-000000000000",
                "event-type=type",
                "content-type=application/json",
                "outbox-id=7",
                "outbox-epoch=9",
                "traceparent=00-1-2-01"
            ]
        );
        assert!(record.payload.is_none(), "a tombstone stays one");
    }
}
