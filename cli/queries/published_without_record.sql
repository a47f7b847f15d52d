select r.topic, r.event_id, r.id, r.made_ms, coalesce(e.key, a.key) as key
  from checked_row r
  join checked_topic t on t.topic = r.topic and t.is_read
  left join checked_first f on f.topic = r.topic and f.event_id = r.event_id
  left join outbox_events e on e.bucket = r.bucket and e.id = r.id
  left join outbox_failed_archive a on a.bucket = r.bucket and a.id = r.id
 where r.status = 'PUBLISHED' and f.event_id is null
 order by r.id
