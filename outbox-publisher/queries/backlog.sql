-- The bounds are those of the relay: the stored ones are some seconds old, and so many rows settled since
-- would be looked at each time.
with waiting as materialized (
    select r.created_at
      from unnest($1::smallint[], $2::bigint[]) as held (bucket, low_id)
     cross join lateral (
           (select e.created_at from outbox_events e
             where e.bucket = held.bucket and e.id > held.low_id and e.lane = 0 and e.status = 'PENDING'
             order by e.id limit $3)
           union all
           (select e.created_at from outbox_events e
             where e.bucket = held.bucket and e.lane = 1 and e.lane <> 0 and e.status = 'PENDING'
             limit $3)) r
)
select (select count(*) from waiting),
       coalesce((select extract(epoch from clock_timestamp() - min(created_at)) from waiting), 0)::float8,
       (select count(*) from outbox_events e where e.bucket = any ($1) and e.lane = 2 and e.lane <> 0)
