-- Dead letters that are not the record that was set aside, byte for byte. A tombstone has the digest of nothing.
select p.event_id, t.name as topic, p.kafka_partition as partition, p.kafka_offset as "offset", r.id
  from processed_events p
  join kafka_topics t on t.topic_id = p.topic_id
  join checked_row r
    on r.source_topic_id = p.topic_id and r.source_partition = p.kafka_partition and r.source_offset = p.kafka_offset
   and r.is_dead_letter
 where p.consumer_id = $1 and p.outcome = 'SET_ASIDE'
   and coalesce(r.value_digest, substr(sha256(''), 1, 16)) <> p.payload_digest
   and ($2::bigint is null or p.processed_at >= to_timestamp($2::float8 / 1000))
   and ($3::bigint is null or p.processed_at < to_timestamp($3::float8 / 1000))
