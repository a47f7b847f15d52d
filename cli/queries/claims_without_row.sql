-- By the place of the record, which the row keeps: whatever topic it went to.
select p.event_id, t.name as topic, p.kafka_partition as partition, p.kafka_offset as "offset",
       p.outcome = 'SET_ASIDE' as is_set_aside, (extract(epoch from p.processed_at) * 1000)::bigint as claimed_ms
  from processed_events p
  join kafka_topics t on t.topic_id = p.topic_id
  left join checked_row r
    on r.source_topic_id = p.topic_id and r.source_partition = p.kafka_partition and r.source_offset = p.kafka_offset
   and r.is_dead_letter = (p.outcome = 'SET_ASIDE')
 where p.consumer_id = $1 and r.id is null
   and ($2::bigint is null or p.processed_at >= to_timestamp($2::float8 / 1000))
   and ($3::bigint is null or p.processed_at < to_timestamp($3::float8 / 1000))
 order by p.processed_at
