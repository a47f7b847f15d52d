-- Input records by what became of them: claimed by themselves, duplicates of a claimed one, of another body.
select count(*) as records,
       count(p.event_id) filter (where is_own) as own,
       count(p.event_id) filter (where not is_own and p.payload_digest = r.digest) as same,
       count(p.event_id) filter (where not is_own and p.payload_digest <> r.digest) as other
  from checked_input r
  left join processed_events p
    on p.event_id = r.event_id and p.consumer_id = $1
   and p.claim_day = coalesce(date '1970-01-01' + r.unix_day, '-infinity')
 cross join lateral (select (p.topic_id, p.kafka_partition, p.kafka_offset) = ($2, r.partition, r."offset") as is_own) o
