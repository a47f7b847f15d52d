-- Foreign is what has nothing of ours: no header of the publisher, no event and no bytes of a row of the topic.
select c.topic, c.partition, c."offset", c.event_id, c.outbox_id, c.timestamp_ms,
       not c.is_marked and mentioned.event_id is null and alike.value_digest is null as is_foreign
  from checked_record c
  left join (select distinct topic, event_id from checked_row) mentioned
    on mentioned.topic = c.topic and mentioned.event_id = c.mentioned_id
  left join (select distinct topic, key_digest, value_digest from checked_row) alike
    on alike.topic = c.topic and alike.value_digest = c.value_digest and alike.key_digest is not distinct from c.key_digest
 where not exists (select from checked_row r where r.topic = c.topic and r.event_id = c.event_id)
 order by c.topic, c.partition, c."offset"
