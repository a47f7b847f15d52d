with waiting as materialized (
    select r.created_at
      from outbox_leases l
     cross join lateral (
           (select e.created_at from outbox_events e
             where e.bucket = l.bucket and e.id > l.low_id and e.lane = 0 and e.status = 'PENDING'
             order by e.id limit $2)
           union all
           (select e.created_at from outbox_events e
             where e.bucket = l.bucket and e.lane = 1 and e.lane <> 0 and e.status = 'PENDING'
             limit $2)) r
     where l.bucket = any ($1)
)
select (select count(*) from waiting),
       coalesce((select extract(epoch from clock_timestamp() - min(created_at)) from waiting), 0)::float8,
       (select count(*) from outbox_events e where e.bucket = any ($1) and e.lane = 2 and e.lane <> 0)
