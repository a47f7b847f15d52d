select topic, event_id, count(*) as times, min(made_ms) as first_ms, max(made_ms) as last_ms,
       bool_and(source_topic_id is not null) as is_caused
  from checked_row
 group by topic, event_id
having count(*) > 1
