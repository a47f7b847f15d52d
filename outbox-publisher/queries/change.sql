-- Retries, parks and fails of one bucket: only under the newest epoch, and only rows that are PENDING.
with lease as materialized (
    select bucket from outbox_leases where bucket = $1 and epoch = $2
       for share -- a take-over waits for us or we see its epoch: no third way
), changed as (
    update outbox_events e
       set lane = a.lane,
           status = case when a.lane = 2 then 'FAILED' else 'PENDING' end::outbox_status,
           publish_attempts = e.publish_attempts + a.attempts,
           next_attempt_at = case when a.pause_ms is null then e.next_attempt_at
                                  else clock_timestamp() + a.pause_ms * interval '1 millisecond' end,
           last_error = coalesce(a.error, e.last_error)
      from lease l, unnest($3::bigint[], $4::uuid[], $5::smallint[], $6::int[], $7::bigint[], $8::text[])
           as a (id, event_id, lane, attempts, pause_ms, error)
     where e.bucket = l.bucket and e.id = a.id and e.event_id = a.event_id
       and e.status = 'PENDING' -- found PUBLISHED, it counts as published
    returning e.id
)
select exists (select from lease), coalesce((select array_agg(id) from changed), '{}')
