-- Leases that still run, of instances that have been silent for a while; no instance at all is silent for ever. By the
-- time of the snapshot: the clock goes on, the rows do not.
select l.bucket, l.lock_owner::text as owner,
       (extract(epoch from l.locked_until) * 1000)::bigint - $1 as runs_ms,
       $1 - (extract(epoch from i.heartbeat_at) * 1000)::bigint as silent_ms
  from outbox_leases l
  left join outbox_instances i on i.instance_id = l.lock_owner
 where l.lock_owner is not null and l.locked_until > to_timestamp($1::float8 / 1000)
   and (i.heartbeat_at is null or i.heartbeat_at < to_timestamp(($1 - 10000)::float8 / 1000))
 order by l.bucket
