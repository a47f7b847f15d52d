-- One statement a tick: heartbeat and count, renew, give back, take. A server that is not the one in
-- which all this was learned moves no lease: a low id known before a crash may lie above rows that the
-- crash took back to lane 0.
with same as materialized (
    select $12::uuid is null or exists (select from outbox_server_life where life = $12) as is_same
), beat as (
    insert into outbox_instances as i (instance_id, heartbeat_at, host)
    select $1, now(), $2 where not $3
    on conflict (instance_id) do update set heartbeat_at = now()
), gone as (
    delete from outbox_instances where (instance_id = $1 and $3) or heartbeat_at < now() - interval '1 minute'
), renewed as (
    update outbox_leases l set locked_until = now() + $4 * interval '1 millisecond', low_id = v.low
      from unnest($5::smallint[], $6::bigint[], $7::bigint[]) as v (bucket, epoch, low)
     where l.bucket = v.bucket and l.epoch = v.epoch and l.lock_owner = $1 and (select is_same from same)
    returning l.bucket
), released as (
    update outbox_leases l set lock_owner = null, locked_until = '-infinity', low_id = v.low
      from unnest($8::smallint[], $9::bigint[], $10::bigint[]) as v (bucket, epoch, low)
     where l.bucket = v.bucket and l.epoch = v.epoch and l.lock_owner = $1 and (select is_same from same)
), free as materialized ( -- materialized: a planner that ran it twice would take more than was asked
    select bucket from outbox_leases
     where (locked_until < now() or lock_owner = $1) -- our own from before a loss: a new tenancy begins
       and bucket <> all ($5) and bucket <> all ($8)
       and (select is_same from same)
     order by locked_until, bucket
     limit $11
       for update skip locked
), acquired as (
    update outbox_leases l
       set lock_owner = $1, locked_until = now() + $4 * interval '1 millisecond', epoch = l.epoch + 1
      from free where l.bucket = free.bucket
    returning l.bucket, l.epoch, l.low_id
), born as ( -- written once in a life; the update is for who comes second and cannot see it yet
    insert into outbox_server_life (one) select true where not exists (select from outbox_server_life)
        on conflict (one) do update set one = true returning life
)
select coalesce((select array_agg(bucket) from renewed), '{}'),
       coalesce((select array_agg(bucket order by bucket) from acquired), '{}'),
       coalesce((select array_agg(epoch order by bucket) from acquired), '{}'),
       coalesce((select array_agg(low_id order by bucket) from acquired), '{}'),
       (select count(*) from outbox_instances
         where instance_id <> $1 and heartbeat_at > now() - $4 * interval '1 millisecond') + 1,
       coalesce((select life from born), (select life from outbox_server_life))
