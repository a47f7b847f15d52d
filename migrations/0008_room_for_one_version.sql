-- Why: the one more version that each row of a leaf gets is larger than the first: published_at comes into it,
-- with its alignment 16 bytes at most. Half a page is then too little for rows of less than 2,700 bytes; of narrow
-- ones one settle in forty was no HOT update. Of the narrowest row (112 bytes) a page may hold no more than 46 %.

create or replace function outbox_make_leaves(p_leaf_rows bigint, p_ahead integer) returns integer
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
        -- No vacuum: there are no dead index entries, and the file is dropped within days.
        execute format(
            'create table %I (like outbox_events including defaults including constraints) with (fillfactor = 46, '
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

-- Pages that are filled from now on, of leaves that are there.
do $$
declare
    leaf regclass;
begin
    for leaf in select inhrelid from pg_inherits where inhparent = 'outbox_events'::regclass loop
        execute format('alter table %s set (fillfactor = 46)', leaf);
    end loop;
end
$$;
