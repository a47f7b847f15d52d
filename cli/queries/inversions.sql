-- Records behind which stands one that they were to follow, or one that is not there yet although it is PENDING.
-- Promised are: rows of one transaction, by id; rows whose writer serialised the key, by id; outcomes of one input
-- partition, by its offsets; and rows whose transactions, as the later one of them knows, had ended before it was
-- inserted. Always within one topic and key; a null key promises nothing. Redriven rows come late on purpose, FAILED
-- ones not at all, and dead letters have no order among themselves. Offsets of two partitions cannot be compared: keys
-- move when partitions are added. Nor can those of two topics of one name: where two rows of a topic come from one
-- offset, the input was made again.
with twice as (
    select topic, event_id, min(id) as id from checked_row group by topic, event_id having count(*) > 1
), placed as (
    select r.topic, r.key_digest, r.id, r.xid, r.ended_below, r.is_ordered, r.source_topic_id, r.source_partition,
           r.source_offset, f.partition, f."offset"
      from checked_row r
      join checked_topic t on t.topic = r.topic and t.is_read
      left join twice d on d.topic = r.topic and d.event_id = r.event_id
      left join checked_first f on f.topic = r.topic and f.event_id = r.event_id
     where r.key_digest is not null and not r.is_redriven and not r.is_dead_letter and r.status <> 'FAILED'
       and (d.id is null or d.id = r.id) -- another row's first occurrence would be taken for its own
       and (f.event_id is not null or r.status = 'PENDING')
       and (f.event_id is null or f.partition = f.last_partition)
), remade as (
    select topic, source_topic_id, source_partition
      from (select topic, source_topic_id, source_partition from placed
             where source_topic_id is not null
             group by topic, source_topic_id, source_partition, source_offset having count(*) > 1) again
     group by 1, 2, 3
), counted as ( -- which rows an input's offsets put in order
    select p.*, p.is_ordered and p.source_topic_id is not null and r.topic is null as is_counted
      from placed p
      left join remade r on r.topic = p.topic and r.source_topic_id = p.source_topic_id
                        and r.source_partition = p.source_partition
), free as ( -- rows of library users, of keys where not each of them took the lock; outcomes have their offsets
    select * from placed
      join (select topic, key_digest from placed where source_topic_id is null
             group by topic, key_digest having not bool_and(is_ordered)) unlocked using (topic, key_digest)
     where source_topic_id is null
), steps as ( -- each row at its transaction, and once more, asking, at the first that it does not know to have ended
    select topic, key_digest, id, partition, "offset", xid as turn, false as asks
      from free
    union all
    select topic, key_digest, id, partition, "offset", ended_below, true
      from free
     where ended_below is not null and "offset" is not null
), asked as (
    select topic, id, partition, "offset", asks,
           max(array["offset", id]) filter (where not asks and "offset" is not null) over (in_partition rows unbounded preceding) as highest,
           min(id) filter (where not asks and "offset" is null) over (in_all rows unbounded preceding) as missing
      from steps
    window in_partition as (partition by topic, key_digest, partition order by turn, asks desc),
           in_all as (partition by topic, key_digest order by turn, asks desc)
), ranked as (
    -- Ids are drawn in the order of such transactions. Where they are not, the numbers are of two servers: a dump.
    select topic, id, partition, "offset", case when highest[2] < id then highest end as highest,
           case when missing < id then missing end as missing
      from asked
     where asks
    union all
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
      from counted
     where is_counted
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
