-- Claims by outcome, and decisions by theirs.
select false as is_decision, outcome::text as outcome, count(*) as count
  from processed_events
 where consumer_id = $1
   and ($2::bigint is null or processed_at >= to_timestamp($2::float8 / 1000))
   and ($3::bigint is null or processed_at < to_timestamp($3::float8 / 1000))
 group by 2
union all
select true, outcome::text, count(*)
  from decisions
 where consumer_id = $1
   and ($2::bigint is null or decided_at >= to_timestamp($2::float8 / 1000))
   and ($3::bigint is null or decided_at < to_timestamp($3::float8 / 1000))
 group by 2
