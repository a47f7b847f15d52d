-- The first statement of the snapshot.
select (extract(epoch from clock_timestamp()) * 1000)::bigint as now_ms,
       (select consumer_id from consumers where name = $1) as consumer_id,
       (select topic_id from kafka_topics where name = $2) as topic_id,
       coalesce((select min(lower_id) from outbox_leaves where dropped_at is null), 0) as rows_from_id,
       exists (select from outbox_leaves where dropped_at is not null) as is_leaf_dropped,
       -- ids and times are drawn together, so the lowest id is the oldest row
       (select min((extract(epoch from e.created_at) * 1000)::bigint)
          from generate_series(0, 63) b
         cross join lateral (select created_at from outbox_events where bucket = b order by id limit 1) e) as oldest_row_ms
