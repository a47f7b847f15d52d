-- Why: the claim is the idempotency check. One committed claim per (consumer, event id) is what makes
-- "decided once" true through redelivery, resends, rebalances and zombies. A claim is unique by
-- (consumer, event id) and by nothing else, so claim_day is a pure function of the id.

-- Consumers and topics by small numbers: both stand in every claim.
create table consumers (
    consumer_id smallint generated always as identity primary key,
    name        text not null constraint consumers_name_key unique
);
create table kafka_topics (
    topic_id smallint generated always as identity primary key,
    name     text not null constraint kafka_topics_name_key unique
);

create type claim_outcome as enum ('DECIDED', 'SET_ASIDE');

create table processed_events (
    event_id       uuid          not null, -- the UUID of the event, or one derived from its text or from the record
    claim_day      date          not null, -- the day inside a UUIDv7, else -infinity
    consumer_id    smallint      not null,
    topic_id       smallint      not null,
    kafka_partition integer      not null,
    kafka_offset   bigint        not null,
    processed_at   timestamptz   not null default clock_timestamp(),
    outcome        claim_outcome not null,
    payload_digest bytea         not null, -- first 16 bytes of SHA-256 of the record's value
    event_id_text  text,                   -- the id as it was written, where event_id is derived from it
    reason_code    text,                   -- why it was set aside
    constraint processed_events_pkey primary key (event_id, consumer_id, claim_day),
    constraint processed_events_digest_check check (octet_length(payload_digest) = 16)
) partition by range (claim_day);

-- Ids without a day (every UUIDv4: all of TriageMate's), and v7 ids whose day has no leaf.
create table processed_events_undated (like processed_events including defaults including constraints);
create table processed_events_default (like processed_events including defaults including constraints);
alter table processed_events attach partition processed_events_undated for values from (minvalue) to ('1970-01-01');
alter table processed_events attach partition processed_events_default default;
-- These two are thinned by age, never dropped; BRIN costs a page and follows insertion order.
create index processed_events_undated_age on processed_events_undated using brin (processed_at) with (autosummarize = on);
create index processed_events_default_age on processed_events_default using brin (processed_at) with (autosummarize = on);

-- Which days have, or had, a leaf: a dropped day is never made again, or its late ids would be split
-- between the new leaf and DEFAULT.
create table claim_leaves (
    day        date primary key,
    made_at    timestamptz not null default clock_timestamp(),
    dropped_at timestamptz
);

-- Makes the leaf of one day, moving its strays out of DEFAULT first. True if it was made now.
-- LIKE and ATTACH, never CREATE ... PARTITION OF, which takes ACCESS EXCLUSIVE on the parent.
create function claims_make_leaf(p_day date) returns boolean
    language plpgsql security definer set search_path from current set lock_timeout = '500ms'
as $$
declare
    leaf text := format('processed_events_%s', to_char(p_day, 'YYYYMMDD'));
begin
    if p_day < '1970-01-01' or exists (select from claim_leaves where day = p_day) then
        return false;
    end if;
    lock table processed_events_default in access exclusive mode; -- no claim may slip in behind the move
    insert into claim_leaves (day) values (p_day) on conflict do nothing;
    if not found then
        return false;
    end if;
    execute format('create table %I (like processed_events including defaults including constraints)', leaf);
    execute format('with strays as (delete from processed_events_default where claim_day = %L returning *) '
                   'insert into %I select * from strays', p_day, leaf);
    execute format('alter table processed_events attach partition %I for values from (%L) to (%L)',
                   leaf, p_day, p_day + 1);
    return true;
end
$$;

-- Drops one leaf whose newest claim is older than the retention; its name, or null when there is none.
-- By processed_at, never by the day: a clock may have been days ahead. The lock keeps claims out
-- between the scan and the drop.
create function claims_drop_leaf(p_retention interval) returns text
    language plpgsql security definer set search_path from current set lock_timeout = '500ms'
as $$
declare
    candidate record;
    leaf      text;
    is_young  boolean;
begin
    for candidate in
        select day from claim_leaves
         where dropped_at is null and made_at < clock_timestamp() - p_retention
           and day < (clock_timestamp() at time zone 'UTC')::date
         order by day
    loop
        leaf := format('processed_events_%s', to_char(candidate.day, 'YYYYMMDD'));
        -- Without the lock first: a leaf in use is recognised without stopping anybody.
        execute format('select exists (select from %I where processed_at >= $1)', leaf)
           into is_young using clock_timestamp() - p_retention;
        continue when is_young;
        execute format('lock table %I in share row exclusive mode', leaf);
        execute format('select exists (select from %I where processed_at >= $1)', leaf)
           into is_young using clock_timestamp() - p_retention;
        continue when is_young;
        execute format('drop table %I', leaf);
        update claim_leaves set dropped_at = clock_timestamp() where day = candidate.day;
        return leaf;
    end loop;
    return null;
end
$$;

-- Deletes at most p_limit claims past the retention from the leaves that are never dropped, oldest first.
create function claims_thin(p_retention interval, p_limit integer) returns bigint
    language plpgsql security definer set search_path from current
as $$
declare
    gone  bigint;
    total bigint := 0;
begin
    delete from processed_events_undated where ctid = any (array(
        select ctid from processed_events_undated
         where processed_at < clock_timestamp() - p_retention order by processed_at limit p_limit));
    get diagnostics gone = row_count;
    total := gone;
    delete from processed_events_default where ctid = any (array(
        select ctid from processed_events_default
         where processed_at < clock_timestamp() - p_retention order by processed_at limit p_limit - gone));
    get diagnostics gone = row_count;
    return total + gone;
end
$$;

select claims_make_leaf((clock_timestamp() at time zone 'UTC')::date + d) from generate_series(-1, 7) d;
