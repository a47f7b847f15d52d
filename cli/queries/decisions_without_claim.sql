select d.event_id, (extract(epoch from d.decided_at) * 1000)::bigint as decided_ms
  from decisions d
  left join processed_events p on p.event_id = d.event_id and p.consumer_id = d.consumer_id
 where d.consumer_id = $1 and p.event_id is null
   and ($2::bigint is null or d.decided_at >= to_timestamp($2::float8 / 1000))
   and ($3::bigint is null or d.decided_at < to_timestamp($3::float8 / 1000))
 order by d.decided_at
