-- When the first record of each partition was made, of those that retention has left.
select distinct on (r.topic, r.partition) r.topic, r.partition, r.timestamp_ms
  from checked_record r
  join unnest($1::integer[], $2::integer[], $3::bigint[]) as low (topic, partition, "offset")
    on low.topic = r.topic and low.partition = r.partition and r."offset" >= low."offset"
 order by r.topic, r.partition, r."offset"
