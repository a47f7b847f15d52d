-- Why: a decision keeps what is needed to decide again (input, policy version and digest) and to prove
-- that nothing else was decided (digest of the output). Replay and the determinism audit stand on it.

create type decision_outcome as enum ('ACCEPT', 'REJECT', 'RETRY', 'DEFER');

create table decisions (
    decision_id    uuid             not null, -- a pure function of consumer and event id; v7 where that is
    event_id       uuid             not null, -- the claim's
    decided_on     date             not null default (clock_timestamp() at time zone 'UTC')::date,
    decided_at     timestamptz      not null default clock_timestamp(),
    consumer_id    smallint         not null,
    outcome        decision_outcome not null,
    reason_code    text             not null, -- of the contract: POLICY_REJECTED, ACCEPTED_BY_DEFAULT, ...
    rule           text             not null, -- which rule spoke
    reasons        text             not null, -- for people
    policy_version text             not null,
    policy_digest  bytea            not null, -- of the rules as they were
    input_id       text             not null,
    input_digest   bytea            not null,
    input          bytea,                     -- the record's value; null where only the digest is kept
    output_digest  bytea            not null,
    attributes     bytea,                     -- JSON: what the policies noted on the way
    constraint decisions_pkey primary key (decision_id, decided_on)
) partition by range (decided_on);

create table decision_leaves (
    day        date primary key,
    made_at    timestamptz not null default clock_timestamp(),
    dropped_at timestamptz
);

create function decisions_make_leaf(p_day date) returns boolean
    language plpgsql security definer set search_path from current set lock_timeout = '500ms'
as $$
declare
    leaf text := format('decisions_%s', to_char(p_day, 'YYYYMMDD'));
begin
    insert into decision_leaves (day) values (p_day) on conflict do nothing;
    if not found then
        return false;
    end if;
    execute format('create table %I (like decisions including defaults including constraints)', leaf);
    execute format('alter table decisions attach partition %I for values from (%L) to (%L)', leaf, p_day, p_day + 1);
    return true;
end
$$;

-- Drops one day of decisions past the retention; its name, or null. decided_on is the database's own
-- day, so here the day is the truth.
create function decisions_drop_leaf(p_retention interval) returns text
    language plpgsql security definer set search_path from current set lock_timeout = '500ms'
as $$
declare
    oldest date;
    leaf   text;
begin
    select min(day) into oldest from decision_leaves
     where dropped_at is null and day + 1 < (clock_timestamp() - p_retention) at time zone 'UTC';
    if oldest is null then
        return null;
    end if;
    leaf := format('decisions_%s', to_char(oldest, 'YYYYMMDD'));
    execute format('drop table %I', leaf);
    update decision_leaves set dropped_at = clock_timestamp() where day = oldest;
    return leaf;
end
$$;

select decisions_make_leaf((clock_timestamp() at time zone 'UTC')::date + d) from generate_series(-1, 14) d;
