-- What duplicates are compared with. A statement of its own: its snapshot is newer than the claim's, so
-- it sees the claims which that one waited for.
select p.event_id, t.name as topic, p.kafka_partition, p.kafka_offset, p.payload_digest,
       p.outcome = 'SET_ASIDE' as is_set_aside
  from unnest($2::uuid[], $3::integer[]) as c (event_id, unix_day)
  join processed_events p
    on p.event_id = c.event_id and p.consumer_id = $1
   and p.claim_day = coalesce(date '1970-01-01' + c.unix_day, '-infinity')
  join kafka_topics t on t.topic_id = p.topic_id
