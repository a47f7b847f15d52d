-- Rows by what they are waiting for.
select r.topic, r.status = 'FAILED' as is_failed, r.status = 'PENDING' as is_pending, r.lane = 1 as is_side,
       r.is_redriven, f.event_id is not null as is_on_topic, r.made_ms <= $1 as is_old,
       count(*) as rows, min(r.made_ms) as oldest_ms,
       (array_agg(r.id order by r.made_ms))[1] as id, (array_agg(r.event_id order by r.made_ms))[1] as event_id
  from checked_row r
  join checked_topic t on t.topic = r.topic and t.is_read
  left join checked_first f on f.topic = r.topic and f.event_id = r.event_id
 where (r.status <> 'PUBLISHED' or r.is_redriven)
   and ($2::bigint is null or r.made_ms >= $2) and ($3::bigint is null or r.made_ms < $3)
 group by 1, 2, 3, 4, 5, 6, 7
 order by 1, 2, 3, 4, 5, 6, 7
