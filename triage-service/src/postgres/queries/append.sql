-- Decisions and outbox events, one round trip.
with decided as (
    insert into decisions (consumer_id, decision_id, event_id, outcome, reason_code, rule, reasons, policy_version,
                           policy_digest, input_id, input_digest, input, output_digest, attributes)
    select $1, d.decision_id, d.event_id, d.outcome::decision_outcome, d.reason_code, d.rule, d.reasons,
           d.policy_version, d.policy_digest, d.input_id, d.input_digest, d.input, d.output_digest, d.attributes
      from unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bytea[],
                  $10::text[], $11::bytea[], $12::bytea[], $13::bytea[], $14::bytea[])
           as d (decision_id, event_id, outcome, reason_code, rule, reasons, policy_version, policy_digest,
                 input_id, input_digest, input, output_digest, attributes)
)
insert into outbox_events (lane_hash, bucket, event_id, is_ordered, source_topic_id, source_partition, source_offset,
                           topic, event_type, content_type, traceparent, tracestate, key, headers, payload, ended_below)
select e.lane_hash, e.bucket, e.event_id, true, e.source_topic_id, e.source_partition, e.source_offset,
       e.topic, e.event_type, e.content_type, e.traceparent, e.tracestate, e.key, e.headers, e.payload,
       null -- what orders an outcome is its source, not what had ended when it was written
  from unnest($15::integer[], $16::smallint[], $17::uuid[], $18::smallint[], $19::integer[], $20::bigint[], $21::text[],
              $22::text[], $23::text[], $24::text[], $25::text[], $26::bytea[], $27::bytea[], $28::bytea[])
       with ordinality
       as e (lane_hash, bucket, event_id, source_topic_id, source_partition, source_offset, topic,
             event_type, content_type, traceparent, tracestate, key, headers, payload, place)
 order by e.place -- ids are drawn after the sort: they ascend as the input's offsets do
