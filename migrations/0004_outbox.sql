-- Why: an outbox event is stored with the change that caused it and published afterwards, in order per
-- key. The row is written once and settled once: status stands in no index and no predicate, and a leaf
-- leaves room on its pages, so the settle is a HOT update. Leaves are ranged by id and dropped whole.

create type outbox_status as enum ('PENDING', 'PUBLISHED', 'FAILED');

-- CACHE 1 is load-bearing: ids drawn in blocks per session are out of order between sessions.
create sequence outbox_events_id_seq as bigint cache 1;

create table outbox_events (
    -- Fixed-width columns first: what an index names is found without walking the row.
    id               bigint        not null default nextval('outbox_events_id_seq'),
    lane_hash        integer       not null, -- outbox_lane_hash(topic, key, event_id)
    bucket           smallint      not null, -- outbox_bucket(key, event_id)
    lane             smallint      not null default 0, -- 0 main, 1 side: behind a failed row of its topic and key, 2 failed
    status           outbox_status not null default 'PENDING',
    publish_attempts integer       not null default 0, -- failures that were the row's own
    event_id         uuid          not null,
    inserted_xid     xid8          not null default pg_current_xact_id(), -- rows of one transaction keep their order
    created_at       timestamptz   not null default clock_timestamp(),
    is_ordered       boolean       not null default false, -- its writer serialised the key: triage, enqueue_ordered
    published_at     timestamptz,
    next_attempt_at  timestamptz,
    redriven_at      timestamptz,
    source_offset    bigint,        -- the input record that caused it, where there is one
    source_partition integer,
    source_topic_id  smallint,
    topic            text          not null,
    event_type       text          not null,
    content_type     text          not null default 'application/json',
    traceparent      text,
    tracestate       text,
    key              bytea,
    headers          bytea,         -- outbox_headers() shows them
    payload          bytea,
    last_error       text,
    constraint outbox_events_pkey primary key (bucket, id),
    constraint outbox_events_bucket_check check (bucket between 0 and 63),
    constraint outbox_events_lane_check check (lane between 0 and 2 and (lane = 2) = (status = 'FAILED')),
    constraint outbox_events_topic_check check (topic <> '' and octet_length(topic) <= 249)
) partition by range (id);
alter sequence outbox_events_id_seq owned by outbox_events.id;

-- Empty on the happy path.
create index outbox_events_side on outbox_events (bucket, lane, lane_hash, id) where lane <> 0;

-- An id must not be drawn before its transaction has an xid: a snapshot names only transactions that
-- have one, and the read rule asks the snapshot who may have drawn a low id. COPY and plain SQL obey too.
create function outbox_draw_xid() returns trigger language plpgsql as $$
begin
    perform pg_current_xact_id();
    return null;
end
$$;
create trigger outbox_events_xid before insert on outbox_events
    for each statement execute function outbox_draw_xid();

-- One row per bucket: who may publish its PENDING rows, until when. epoch fences; low_id is a stored
-- bound: every lane-0 row at or below it is terminal and no running transaction can still write there.
create table outbox_leases (
    bucket       smallint    primary key constraint outbox_leases_bucket_check check (bucket between 0 and 63),
    lock_owner   uuid,
    locked_until timestamptz not null default '-infinity',
    epoch        bigint      not null default 0,
    low_id       bigint      not null default 0
) with (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);
insert into outbox_leases (bucket) select generate_series(0, 63);

create table outbox_instances (
    instance_id  uuid        primary key,
    heartbeat_at timestamptz not null,
    started_at   timestamptz not null default clock_timestamp(),
    host         text        not null
) with (fillfactor = 20, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

-- Gone after a crash recovery and on a promoted replica: so a publisher behind a pooler, whose own
-- connection survived, still learns that the server came back without its newest commits.
create unlogged table outbox_server_life (
    life uuid not null default gen_random_uuid(),
    one  boolean not null default true constraint outbox_server_life_one unique check (one)
);

create table outbox_leaves (
    lower_id   bigint primary key, -- inclusive
    upper_id   bigint not null,    -- exclusive
    made_at    timestamptz not null default clock_timestamp(),
    check_at   timestamptz not null default '-infinity', -- no scan before: the last one saw a younger row
    dropped_at timestamptz
);

-- FAILED rows whose leaf is gone keep their way back.
create table outbox_failed_archive (
    like outbox_events including defaults,
    archived_at timestamptz not null default clock_timestamp(),
    constraint outbox_failed_archive_pkey primary key (bucket, id)
);
alter table outbox_failed_archive alter column id drop default;
create index outbox_failed_archive_lane on outbox_failed_archive (bucket, lane_hash, id);

-- Makes leaves of p_leaf_rows ids until p_ahead whole ones lie above the newest id. Returns how many.
-- Far enough ahead that writers go on for days while every service is down.
create function outbox_make_leaves(p_leaf_rows bigint, p_ahead integer) returns integer
    language plpgsql security definer set search_path from current set lock_timeout = '500ms'
as $$
declare
    top   bigint;
    next  bigint;
    made  integer := 0;
    leaf  text;
begin
    perform pg_advisory_xact_lock(hashtextextended('outbox_make_leaves', 0));
    select last_value into next from outbox_events_id_seq;
    select coalesce(max(upper_id), 0) into top from outbox_leaves;
    while top <= next + p_leaf_rows * p_ahead loop
        leaf := format('outbox_events_%s', lpad(top::text, 12, '0'));
        -- fillfactor 50: each row gets exactly one more version, and it must fit on its page. No vacuum:
        -- there are no dead index entries, and the file is dropped within days.
        execute format(
            'create table %I (like outbox_events including defaults including constraints) with (fillfactor = 50, '
            'autovacuum_vacuum_threshold = 2000000000, autovacuum_vacuum_scale_factor = 0, '
            'autovacuum_vacuum_insert_threshold = -1, '
            'autovacuum_analyze_threshold = 1000000, autovacuum_analyze_scale_factor = 0)', leaf);
        execute format('alter table outbox_events attach partition %I for values from (%s) to (%s)',
                       leaf, top, top + p_leaf_rows);
        insert into outbox_leaves (lower_id, upper_id) values (top, top + p_leaf_rows);
        top := top + p_leaf_rows;
        made := made + 1;
    end loop;
    return made;
end
$$;

-- Drops the oldest leaf if nothing can still need it; its name, or null. Scan and drop are one
-- transaction under a lock that makes a redrive wait: between them a FAILED row could be put back.
create function outbox_drop_leaf(p_retention interval) returns text
    language plpgsql security definer set search_path from current set lock_timeout = '500ms'
as $$
declare
    oldest  record;
    leaf    text;
    pending bigint;
    newest  timestamptz;
    is_last boolean;
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
                   'max(greatest(created_at, published_at, redriven_at)) from %I', leaf) into pending, newest;
    if pending > 0 then
        update outbox_leaves set check_at = clock_timestamp() + interval '1 minute' where lower_id = oldest.lower_id;
        return null;
    end if;
    if newest > clock_timestamp() - p_retention then
        update outbox_leaves set check_at = newest + p_retention where lower_id = oldest.lower_id;
        return null;
    end if;
    execute format('insert into outbox_failed_archive select e.*, clock_timestamp() from %I e '
                   'where status = ''FAILED''', leaf);
    execute format('drop table %I', leaf);
    update outbox_leaves set dropped_at = clock_timestamp() where lower_id = oldest.lower_id;
    return leaf;
end
$$;

-- Puts FAILED rows back, by event id or by topic (one of them): into the side lane, where their key's
-- order is kept. A row whose leaf is gone is inserted again under a new id. Returns how many.
create function outbox_redrive(p_event_id uuid default null, p_topic text default null) returns bigint
    language plpgsql security definer set search_path from current
as $$
declare
    here bigint;
    back bigint;
begin
    if p_event_id is null and p_topic is null then
        raise exception 'outbox_redrive needs an event id or a topic' using errcode = 'invalid_parameter_value';
    end if;
    update outbox_events
       set status = 'PENDING', lane = 1, publish_attempts = 0, next_attempt_at = null, redriven_at = clock_timestamp()
     where bucket between 0 and 63 and lane = 2
       and (p_event_id is null or event_id = p_event_id) and (p_topic is null or topic = p_topic);
    get diagnostics here = row_count;
    with gone as (
        delete from outbox_failed_archive
         where (p_event_id is null or event_id = p_event_id) and (p_topic is null or topic = p_topic)
        returning *)
    insert into outbox_events (lane_hash, bucket, lane, event_id, is_ordered, redriven_at, source_offset,
                               source_partition, source_topic_id, topic, event_type, content_type, traceparent,
                               tracestate, key, headers, payload, last_error)
    select lane_hash, bucket, 1, event_id, is_ordered, clock_timestamp(), source_offset, source_partition,
           source_topic_id, topic, event_type, content_type, traceparent, tracestate, key, headers, payload, last_error
      from gone order by id;
    get diagnostics back = row_count;
    return here + back;
end
$$;

-- For writers without our library: an event of the caller's transaction.
create function outbox_enqueue(p_topic text, p_key bytea, p_event_type text, p_payload bytea,
                               p_event_id uuid default gen_random_uuid()) returns bigint
    language sql
as $$
    insert into outbox_events (lane_hash, bucket, event_id, topic, key, event_type, payload)
    values (outbox_lane_hash(p_topic, p_key, p_event_id), outbox_bucket(p_key, p_event_id), p_event_id,
            p_topic, p_key, p_event_type, p_payload)
    returning id
$$;

-- Headers of a row, as stored: name length (2 bytes), name, value length (4 bytes, -1 is null), value; big endian.
create function outbox_headers(headers bytea) returns table (name text, value bytea)
    language plpgsql immutable strict parallel safe
as $$
declare
    at  integer := 0;
    len bigint;
begin
    while at < octet_length(headers) loop
        len := (get_byte(headers, at) << 8) | get_byte(headers, at + 1);
        name := convert_from(substr(headers, at + 3, len::integer), 'UTF8');
        at := at + 2 + len::integer;
        len := (get_byte(headers, at)::bigint << 24) | (get_byte(headers, at + 1) << 16)
             | (get_byte(headers, at + 2) << 8) | get_byte(headers, at + 3);
        at := at + 4;
        if len = 4294967295 then
            value := null;
        else
            value := substr(headers, at + 1, len::integer);
            at := at + len::integer;
        end if;
        return next;
    end loop;
end
$$;

select outbox_make_leaves(5000000, 6);
