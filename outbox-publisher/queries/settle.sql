-- An acknowledged row is on its topic, whoever writes it down and whatever was thought of it meanwhile.
-- By all three columns: after a crash an id may be another row's. The range of ids chooses no row: it tells the
-- planner which leaves to name, and lock. The settle of a lane-0 row changes no indexed column, so it is a HOT
-- update.
update outbox_events e
   set status = 'PUBLISHED', published_at = clock_timestamp(), lane = 0
  from unnest($1::smallint[], $2::bigint[], $3::uuid[]) as a (bucket, id, event_id)
 where e.bucket = a.bucket and e.id = a.id and e.event_id = a.event_id and e.status <> 'PUBLISHED'
   and e.id between $4 and $5
