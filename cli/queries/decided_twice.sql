select event_id, count(*) as times, (extract(epoch from min(decided_at)) * 1000)::bigint as first_ms,
       (extract(epoch from max(decided_at)) * 1000)::bigint as last_ms, string_agg(distinct outcome::text, ' and ') as outcomes
  from decisions
 where consumer_id = $1
 group by event_id
having count(*) > 1
   and ($2::bigint is null or max(decided_at) >= to_timestamp($2::float8 / 1000))
   and ($3::bigint is null or min(decided_at) < to_timestamp($3::float8 / 1000))
