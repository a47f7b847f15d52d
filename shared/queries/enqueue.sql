insert into outbox_events (bucket, lane_hash, event_id, topic, key, event_type, content_type, payload, headers,
                           traceparent, tracestate, is_ordered, ended_below)
select u.bucket, u.lane_hash, u.event_id, u.topic, u.key, u.event_type, u.content_type, u.payload, u.headers,
       u.traceparent, u.tracestate, $12,
       (select pg_snapshot_xmin(pg_current_snapshot())::xid) -- computed once; the column's default is, for each row
  from unnest($1::smallint[], $2::integer[], $3::uuid[], $4::text[], $5::bytea[], $6::text[], $7::text[],
              $8::bytea[], $9::bytea[], $10::text[], $11::text[])
       with ordinality as u(bucket, lane_hash, event_id, topic, key, event_type, content_type, payload, headers,
                            traceparent, tracestate, place)
 order by u.place -- ids are drawn after this sort: the order of the caller is the order of the ids
