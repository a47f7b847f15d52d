-- Input records whose event this consumer has not claimed.
select r.partition, r."offset", r.event_id, r.timestamp_ms
  from checked_input r
  left join processed_events p
    on p.event_id = r.event_id and p.consumer_id = $1
   and p.claim_day = coalesce(date '1970-01-01' + r.unix_day, '-infinity')
 where p.event_id is null
 order by r.partition, r."offset"
