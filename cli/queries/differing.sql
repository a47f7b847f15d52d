-- Records that are no row of theirs, byte for byte.
select c.topic, c.partition, c."offset", c.event_id, r.id, c.timestamp_ms,
       c.key_digest is distinct from r.key_digest as is_other_key,
       c.value_digest is distinct from r.value_digest as is_other_payload
  from checked_record c
  join checked_row r on r.topic = c.topic and r.event_id = c.event_id
 where (c.key_digest is distinct from r.key_digest or c.value_digest is distinct from r.value_digest)
   and not exists (select from checked_row s
                    where s.topic = c.topic and s.event_id = c.event_id
                      and s.key_digest is not distinct from c.key_digest
                      and s.value_digest is not distinct from c.value_digest)
 order by c.topic, c.partition, c."offset"
