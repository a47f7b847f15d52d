select c.topic, c.partition, c."offset", c.event_id, c.outbox_id, c.timestamp_ms
  from checked_record c
 where not exists (select from checked_row r where r.topic = c.topic and r.event_id = c.event_id)
 order by c.topic, c.partition, c."offset"
