-- Records behind which stands one that they were to follow, or one that is not there yet although it is PENDING.
-- Promised are: rows of one transaction, by id; rows whose writer serialised the key, by id; outcomes of one input
-- partition, by its offsets. Always within one topic and key; a null key promises nothing. Redriven rows come late on
-- purpose, FAILED ones not at all, and dead letters have no order among themselves. Offsets of two partitions cannot
-- be compared: keys move when partitions are added.
with twice as (
    select topic, event_id, min(id) as id from checked_row group by topic, event_id having count(*) > 1
), placed as (
    select r.topic, r.key_digest, r.id, r.xid, r.is_ordered, r.source_topic_id, r.source_partition, r.source_offset,
           f.partition, f."offset"
      from checked_row r
      join checked_topic t on t.topic = r.topic and t.is_read
      left join twice d on d.topic = r.topic and d.event_id = r.event_id
      left join checked_first f on f.topic = r.topic and f.event_id = r.event_id
     where r.key_digest is not null and not r.is_redriven and not r.is_dead_letter and r.status <> 'FAILED'
       and (d.id is null or d.id = r.id) -- another row's first occurrence would be taken for its own
       and (f.event_id is not null or r.status = 'PENDING')
       and (f.event_id is null or f.partition = f.last_partition)
), ranked as (
    select topic, id, partition, "offset",
           max(array["offset", id]) filter (where "offset" is not null) over (in_partition rows unbounded preceding) as highest,
           max(id) filter (where "offset" is null) over (in_all rows unbounded preceding) as missing
      from placed
    window in_partition as (partition by topic, key_digest, xid, partition order by id),
           in_all as (partition by topic, key_digest, xid order by id)
    union all
    select topic, id, partition, "offset",
           max(array["offset", id]) filter (where "offset" is not null) over (in_partition rows unbounded preceding),
           max(id) filter (where "offset" is null) over (in_all rows unbounded preceding)
      from placed
     where is_ordered and source_topic_id is null
    window in_partition as (partition by topic, key_digest, partition order by id),
           in_all as (partition by topic, key_digest order by id)
    union all
    select topic, id, partition, "offset",
           max(array["offset", id]) filter (where "offset" is not null) over (in_partition rows unbounded preceding),
           max(id) filter (where "offset" is null) over (in_all rows unbounded preceding)
      from placed
     where is_ordered and source_topic_id is not null
    window in_partition as (partition by topic, key_digest, source_topic_id, source_partition, partition
                            order by source_offset, id),
           in_all as (partition by topic, key_digest, source_topic_id, source_partition order by source_offset, id)
), broken as (
    select distinct on (topic, id) topic, id, partition, "offset",
           case when highest[1] > "offset" then highest[2] else missing end as earlier,
           case when highest[1] > "offset" then highest[1] end as earlier_offset
      from ranked
     where "offset" is not null and (highest[1] > "offset" or missing is not null)
     order by topic, id, highest[1] desc nulls last
)
select b.topic, b.partition, b."offset", b.id, r.event_id, b.earlier_offset, e.id as earlier_id, e.made_ms as earlier_ms,
       r.made_ms
  from broken b
  join checked_row r on r.topic = b.topic and r.id = b.id
  join checked_row e on e.topic = b.topic and e.id = b.earlier
 order by b.topic, b.partition, b."offset"
