-- One pass over the outbox, the archive of FAILED rows included; everything after it reads the narrow copy. No server
-- has ever come to transaction 2^62: a number above it is somebody's invention, and must not end the statement.
insert into checked_row
select coalesce(t.topic, -1), e.event_id, e.id, e.bucket, e.lane, e.status, e.is_ordered, e.redriven_at is not null,
       e.event_type = 'dead-letter' and e.source_topic_id is not null, e.xid,
       e.xid - ((e.xid - e.ended_below::text::bigint) & 4294967295), -- below 2^32 it is kept
       e.source_topic_id, e.source_partition, e.source_offset,
       substr(sha256(e.key), 1, 16), substr(sha256(e.payload), 1, 16),
       (extract(epoch from coalesce(e.redriven_at, e.created_at)) * 1000)::bigint
  from (select event_id, id, bucket, lane, status, is_ordered, redriven_at, event_type,
               least(inserted_xid, '4611686018427387904')::text::bigint as xid, ended_below, source_topic_id, source_partition, source_offset, key,
               payload, created_at, topic
          from outbox_events
         union all
        select event_id, id, bucket, lane, status, is_ordered, redriven_at, event_type,
               least(inserted_xid, '4611686018427387904')::text::bigint, null::xid, source_topic_id, source_partition, source_offset, key,
               payload, created_at, topic
          from outbox_failed_archive) e
  left join checked_topic t on t.name = e.topic
