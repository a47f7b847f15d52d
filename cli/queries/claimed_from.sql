-- By partition, the lowest place of a claim that is within retention.
select kafka_partition as partition, min(kafka_offset) as "offset"
  from processed_events
 where consumer_id = $1 and topic_id = $2 and processed_at >= to_timestamp($3::float8 / 1000)
 group by 1
