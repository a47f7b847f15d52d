-- A policy failed over an event that this transaction has just claimed.
update processed_events p
   set outcome = 'SET_ASIDE', reason_code = c.reason_code
  from unnest($2::uuid[], $3::integer[], $4::text[]) as c (event_id, unix_day, reason_code)
 where p.event_id = c.event_id and p.claim_day = coalesce(date '1970-01-01' + c.unix_day, '-infinity')
   and p.consumer_id = $1
