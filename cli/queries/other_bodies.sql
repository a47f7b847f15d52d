-- Records of a claimed event with another body than the one that was decided. A dead letter put back has moved its
-- claim to the record that was decided, so the record that was set aside stands here, too, if it was corrected.
select r.partition, r."offset", r.event_id, t.name as topic, p.kafka_partition as claimed_partition, p.kafka_offset as claimed_offset
  from checked_input r
  join processed_events p
    on p.event_id = r.event_id and p.consumer_id = $1
   and p.claim_day = coalesce(date '1970-01-01' + r.unix_day, '-infinity')
  join kafka_topics t on t.topic_id = p.topic_id
 where p.payload_digest <> r.digest and (p.topic_id, p.kafka_partition, p.kafka_offset) is distinct from ($2, r.partition, r."offset")
 order by r.partition, r."offset"
 limit $3
