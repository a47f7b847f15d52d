select topic, sum(occurrences - 1)::bigint as repeats, count(*) filter (where partition <> last_partition) as moved
  from checked_first group by topic
