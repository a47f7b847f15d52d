-- Claims what nobody has claimed. The arrays are sorted by id: overlapping owners wait for each other
-- in one direction only. A claim that another transaction is about to make is waited for.
insert into processed_events (event_id, claim_day, consumer_id, topic_id, kafka_partition, kafka_offset,
                              outcome, payload_digest, event_id_text, reason_code)
select c.event_id,
       coalesce(date '1970-01-01' + c.unix_day, '-infinity'), -- a pure function of the id
       $1, c.topic_id, c.kafka_partition, c.kafka_offset,
       case when c.reason_code is null then 'DECIDED' else 'SET_ASIDE' end::claim_outcome,
       c.digest, c.event_id_text, c.reason_code
  from unnest($2::uuid[], $3::integer[], $4::smallint[], $5::integer[], $6::bigint[], $7::bytea[], $8::text[], $9::text[])
       as c (event_id, unix_day, topic_id, kafka_partition, kafka_offset, digest, event_id_text, reason_code)
    on conflict do nothing
returning event_id
