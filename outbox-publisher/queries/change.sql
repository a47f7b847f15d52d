-- Retry, park or fail: only under the newest epoch, and only rows that are PENDING.
with lease as materialized (
    select bucket from outbox_leases where bucket = $1 and epoch = $2
       for share -- a take-over waits for us or we see its epoch: no third way
), changed as (
    update outbox_events e
       set lane = $5::smallint,
           status = case when $5 = 2 then 'FAILED' else 'PENDING' end::outbox_status,
           publish_attempts = e.publish_attempts + $6,
           next_attempt_at = case when $7::bigint is null then e.next_attempt_at
                                  else clock_timestamp() + $7 * interval '1 millisecond' end,
           last_error = coalesce($8, e.last_error)
      from lease l, unnest($3::bigint[], $4::uuid[]) as a (id, event_id)
     where e.bucket = l.bucket and e.id = a.id and e.event_id = a.event_id
       and e.status = 'PENDING' -- found PUBLISHED, it counts as published
    returning e.id
)
select exists (select from lease), coalesce((select array_agg(id) from changed), '{}')
