select topic, event_id, partition, "offset", occurrences, partition <> last_partition as is_moved
  from checked_first
 where occurrences > 1
 order by topic, partition, "offset"
 limit $1
