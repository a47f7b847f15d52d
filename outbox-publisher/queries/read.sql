-- Lane 0 of the buckets held: one statement, one snapshot for all rows. The first row is the head: which
-- snapshot this was, what the sequence had handed out, which buckets are still ours. It travels in
-- columns of the rows, since a statement has one shape of row: bucket -1, id = xmax, event_id = life,
-- topic = running transactions, event_type = buckets owned, content_type = sample.
with ended as materialized (
    -- From where to read because a transaction has ended that an earlier snapshot named as running.
    select min(f.floor) as floor
      from unnest($6::bigint[], $7::bigint[]) as f (xid, floor)
     where pg_visible_in_snapshot(f.xid::text::xid8, pg_current_snapshot())
), owned as materialized (
    select c.bucket, c.rows_max, c.place, greatest(c.low, least(c.bound, e.floor)) as bound -- least() passes over null
      from unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::integer[])
           with ordinality as c (bucket, epoch, bound, low, rows_max, place)
      join outbox_leases l on l.bucket = c.bucket and l.epoch = c.epoch -- another epoch: its owner may have moved rows
     cross join ended e
)
select (-1)::smallint, pg_snapshot_xmax(s)::text::bigint, 0, (select life from outbox_server_life), 0,
       (select string_agg(x::text, ',') from pg_snapshot_xip(s) x), null::bytea,
       (select string_agg(bucket::text, ',') from owned),
       (select (case when is_called then last_value else last_value - 1 end)::text from outbox_events_id_seq),
       null::bytea, null::bytea, null::text, null::text
  from (select pg_current_snapshot() as s) t
union all
(select r.bucket, r.id, r.lane_hash, r.event_id, r.publish_attempts, r.topic, r.key, r.event_type, r.content_type,
        r.payload, r.headers, r.traceparent, r.tracestate
   from (select * from owned order by place) o
  cross join lateral (
        select * from outbox_events e
         where e.bucket = o.bucket and e.id > o.bound and e.lane = 0 and e.status = 'PENDING'
           -- What this snapshot shows was drawn before: leaves above, made for later, need no look. A sweep looks all the same.
           and e.id <= (select case when $8 then 9223372036854775807 else last_value end from outbox_events_id_seq)
         order by e.id
         limit o.rows_max) r)
