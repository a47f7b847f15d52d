-- Why: an event follows each one of its key whose transaction had committed before its row was inserted. What took no
-- lock on its key can be judged by that only if a row tells which transactions had ended: all below `ended_below`, the
-- xmin of the snapshot of the statement that inserted it. The upper half of that number is the one of inserted_xid, or
-- one less: a transaction never lies 2^31 behind one that runs. Rows from before have none, and are not judged by it.

-- Two steps: a column that comes with a default which is computed rewrites the table. Each attempt waits for a moment
-- only, since every writer waits behind it.
do $$
begin
    for attempt in 1..60 loop
        begin
            set local lock_timeout = '500ms';
            alter table outbox_events add column ended_below xid;
            alter table outbox_events alter column ended_below set default pg_snapshot_xmin(pg_current_snapshot())::xid;
            set local lock_timeout = 0;
            return;
        exception when lock_not_available then
            perform pg_sleep(0.5);
        end;
    end loop;
    raise exception 'outbox_events was in use for a minute: end what holds it (select pid, query from pg_stat_activity '
        'join pg_locks using (pid) where relation = ''outbox_events''::regclass), then run --migrate again'
        using errcode = 'lock_not_available';
end
$$;

-- As before, but for two things. The columns stand by name: of a row that has failed nobody asks what it was to follow.
-- And a time of making that lies ahead is a writer's mistake, which must not keep leaves for as long.
create or replace function outbox_drop_leaf(p_retention interval) returns text
    language plpgsql security definer set search_path from current set lock_timeout = '500ms'
as $$
declare
    oldest  record;
    leaf    text;
    pending bigint;
    newest  timestamptz;
    is_last boolean;
    kept    constant text :=
        'id, lane_hash, bucket, lane, status, publish_attempts, event_id, inserted_xid, created_at, is_ordered, '
        'published_at, next_attempt_at, redriven_at, source_offset, source_partition, source_topic_id, topic, '
        'event_type, content_type, traceparent, tracestate, key, headers, payload, last_error';
begin
    select lower_id, upper_id, check_at into oldest from outbox_leaves
     where dropped_at is null order by lower_id limit 1;
    select count(*) = 1 into is_last from outbox_leaves where dropped_at is null;
    if not found or is_last or oldest.check_at > clock_timestamp()
       or oldest.upper_id - 1 > (select min(low_id) from outbox_leases) then
        return null;
    end if;
    leaf := format('outbox_events_%s', lpad(oldest.lower_id::text, 12, '0'));
    execute format('lock table %I in share row exclusive mode', leaf);
    execute format('select count(*) filter (where status = ''PENDING''), '
                   'max(greatest(case when created_at <= clock_timestamp() then created_at end, published_at, redriven_at)) '
                   'from %I', leaf) into pending, newest;
    if pending > 0 then
        update outbox_leaves set check_at = clock_timestamp() + interval '1 minute' where lower_id = oldest.lower_id;
        return null;
    end if;
    if newest > clock_timestamp() - p_retention then
        update outbox_leaves set check_at = newest + p_retention where lower_id = oldest.lower_id;
        return null;
    end if;
    execute format('insert into outbox_failed_archive (%s) select %s from %I where status = ''FAILED''',
                   kept, kept, leaf);
    execute format('drop table %I', leaf);
    update outbox_leaves set dropped_at = clock_timestamp() where lower_id = oldest.lower_id;
    return leaf;
end
$$;
