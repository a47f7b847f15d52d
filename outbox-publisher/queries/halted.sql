-- The FAILED heads that halt their key, the archive included: the lowest id of each (topic, key). In the
-- look's own statement they would share its snapshot but cost every look; the look reads them only
-- where a topic halts, in a transaction with it.
select distinct on (bucket, topic, key, case when key is null then event_id end) bucket, id, event_id, topic, key
  from (select bucket, id, event_id, topic, key from outbox_events
         where bucket = any ($1) and lane = 2 and lane <> 0
        union all
        select bucket, id, event_id, topic, key from outbox_failed_archive
         where bucket = any ($1)) failed
 where $2 or topic = any ($3)
 order by bucket, topic, key, case when key is null then event_id end, id
