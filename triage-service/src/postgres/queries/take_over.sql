-- The way back: another record takes over the claim of one that was set aside. The update is its claim.
update processed_events
   set outcome = case when $7::text is null then 'DECIDED' else 'SET_ASIDE' end::claim_outcome,
       reason_code = $7, topic_id = $4, kafka_partition = $5, kafka_offset = $6, payload_digest = $8,
       processed_at = clock_timestamp()
 where event_id = $1 and claim_day = coalesce(date '1970-01-01' + $2::integer, '-infinity') and consumer_id = $3
   and outcome = 'SET_ASIDE'                                                       -- decided is final
   and (topic_id, kafka_partition, kafka_offset) is distinct from ($4, $5, $6)     -- a redelivery is no other record
returning event_id
