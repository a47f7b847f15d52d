-- The first occurrence of each event on each topic.
insert into checked_first
select topic, event_id, min(partition), max(partition), min("offset"), count(*)
  from checked_record
 where event_id is not null
 group by topic, event_id
