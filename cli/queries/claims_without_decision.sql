select p.event_id, t.name as topic, p.kafka_partition as partition, p.kafka_offset as "offset",
       exists (select from decision_leaves l
                where l.dropped_at is not null
                  and l.day - (p.processed_at at time zone 'UTC')::date in (0, 1)) as is_day_dropped -- a transaction may cross midnight
  from processed_events p
  join kafka_topics t on t.topic_id = p.topic_id
  left join decisions d on d.event_id = p.event_id and d.consumer_id = p.consumer_id
 where p.consumer_id = $1 and p.outcome = 'DECIDED' and d.event_id is null
   and ($2::bigint is null or p.processed_at >= to_timestamp($2::float8 / 1000))
   and ($3::bigint is null or p.processed_at < to_timestamp($3::float8 / 1000))
 order by p.processed_at
