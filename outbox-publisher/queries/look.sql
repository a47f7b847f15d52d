-- Lane 1 of the buckets held, by blocked key: the first rows of each lane hash, so many lanes a bucket.
-- The lanes are found by skipping through the index: a key with a million followers costs one probe.
-- The first row is the head: bucket -1, event_id = life, event_type = buckets owned.
with owned as materialized (
    select c.bucket, c.after_hash
      from unnest($1::smallint[], $2::bigint[], $3::bigint[]) as c (bucket, epoch, after_hash)
      join outbox_leases l on l.bucket = c.bucket and l.epoch = c.epoch
), lanes as materialized (
    select o.bucket, h.lane_hash
      from owned o
     cross join lateral (
            with recursive h (lane_hash) as (
                (select e.lane_hash from outbox_events e
                  where e.bucket = o.bucket and e.lane = 1 and e.lane <> 0 and e.lane_hash > o.after_hash
                  order by e.lane_hash limit 1)
                union all
                select (select e.lane_hash from outbox_events e
                         where e.bucket = o.bucket and e.lane = 1 and e.lane <> 0 and e.lane_hash > h.lane_hash
                         order by e.lane_hash limit 1)
                  from h where h.lane_hash is not null)
            select lane_hash from h where lane_hash is not null limit $4) h
)
select (-1)::smallint, 0::bigint, 0, (select life from outbox_server_life), 0, null::text, null::bytea,
       (select string_agg(bucket::text, ',') from owned), null::text, null::bytea, null::bytea, null::text, null::text,
       0::bigint
union all
(select r.bucket, r.id, r.lane_hash, r.event_id, r.publish_attempts, r.topic, r.key, r.event_type, r.content_type,
        r.payload, r.headers, r.traceparent, r.tracestate,
        greatest(0, extract(epoch from r.next_attempt_at - clock_timestamp()) * 1000)::bigint
   from lanes l
  cross join lateral (
        select * from outbox_events e
         where e.bucket = l.bucket and e.lane = 1 and e.lane <> 0 and e.lane_hash = l.lane_hash and e.status = 'PENDING'
         order by e.id
         limit $5) r)
