-- Why: what a row says of itself is computed with. A time without an end, or one near the end of all times, makes each
-- statement fail that takes it from another: how long the oldest row waits, how long a side row has to, whether a leaf
-- is past its retention. So does a count that cannot grow. Such a row is refused where it is written.

do $$
begin
    for attempt in 1..60 loop
        begin
            set local lock_timeout = '500ms';
            -- Not valid: rows from before are not read, under a lock that every writer waits for.
            alter table outbox_events add constraint outbox_events_possible_check check (
                created_at between '1970-01-01 00:00:00+00' and '2200-01-01 00:00:00+00'
                and published_at between '1970-01-01 00:00:00+00' and '2200-01-01 00:00:00+00'
                and next_attempt_at between '1970-01-01 00:00:00+00' and '2200-01-01 00:00:00+00'
                and redriven_at between '1970-01-01 00:00:00+00' and '2200-01-01 00:00:00+00'
                and publish_attempts between 0 and 1000000000) not valid;
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
