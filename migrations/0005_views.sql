-- Why: people ask who holds a row and since when, and queries written for TriageMate name its columns.
-- No lock column stands in outbox_events: the lease of the bucket is the lock of its rows.

-- Every PENDING row with the lease that covers it.
create view outbox_claims as
select e.id, e.bucket, e.lane, e.event_id, e.topic, bytes_as_text(e.key) as key, e.status, e.publish_attempts,
       e.next_attempt_at, e.created_at, e.last_error,
       case when l.locked_until > clock_timestamp() then l.lock_owner end as lock_owner,
       case when l.locked_until > clock_timestamp() then l.locked_until end as locked_until,
       l.epoch
  from outbox_events e
  join outbox_leases l using (bucket)
 where e.status = 'PENDING';

-- FAILED rows, kept leaves and archive alike; outbox_redrive() puts them back.
create view outbox_failed as
select id, bucket, event_id, topic, bytes_as_text(key) as key, publish_attempts, created_at, last_error, null::timestamptz as archived_at
  from outbox_events where lane = 2 and bucket between 0 and 63
union all
select id, bucket, event_id, topic, bytes_as_text(key), publish_attempts, created_at, last_error, archived_at
  from outbox_failed_archive;

create schema if not exists triagemate;

create view triagemate.processed_events as
select coalesce(p.event_id_text, p.event_id::text) as event_id, p.processed_at
  from processed_events p;

create view triagemate.outbox_events as
select e.id, 'event'::text as aggregate_type, bytes_as_text(e.key) as aggregate_id, e.event_type,
       bytes_as_jsonb(e.payload) as payload, e.status::text as status, e.publish_attempts, e.next_attempt_at,
       e.created_at, e.published_at,
       case when e.status = 'PENDING' and l.locked_until > clock_timestamp() then l.lock_owner end as lock_owner,
       case when e.status = 'PENDING' and l.locked_until > clock_timestamp() then l.locked_until end as locked_until,
       e.last_error
  from outbox_events e
  join outbox_leases l using (bucket);

create view triagemate.decisions as
select d.decision_id::text as decision_id, coalesce(p.event_id_text, d.event_id::text) as event_id, d.policy_version,
       d.outcome::text as outcome, d.reason_code, d.reasons as human_readable_reason,
       bytes_as_jsonb(d.input) as input_snapshot, bytes_as_jsonb(d.attributes) as attributes_snapshot,
       d.decided_at as created_at
  from decisions d
  left join processed_events p on p.event_id = d.event_id and p.consumer_id = d.consumer_id;
