-- Why: each service gets the rights that its statements need and no more; people read. The roles cannot
-- log in until an administrator says so (alter role ... login password ...). Their settings are the
-- role's, since a pooler loses those of a session: a service that stalls inside a transaction is ended
-- by the server, and its successor stops waiting for its claims.
-- Roles belong to the cluster: where this database's owner may not make them, they are left out and the
-- services run as the owner or as roles that the administrator grants the same rights.
do $$
declare
    name text;
begin
    foreach name in array array['claimfirst_triage', 'claimfirst_publisher', 'claimfirst_reader'] loop
        if not exists (select from pg_roles where rolname = name) then
            execute format('create role %I nologin', name);
            execute format('alter role %I set jit = off', name);
            execute format('alter role %I set idle_in_transaction_session_timeout = ''10s''', name);
            execute format('alter role %I set lock_timeout = ''5s''', name);
            execute format('alter role %I set client_connection_check_interval = ''2s''', name);
        end if;
    end loop;
exception
    when insufficient_privilege then raise notice 'roles not made: %', sqlerrm;
    when duplicate_object or unique_violation then null; -- another database of the cluster was quicker
end
$$;

do $$
declare
    fn text;
begin
    foreach fn in array array['claims_make_leaf(date)', 'claims_drop_leaf(interval)', 'claims_thin(interval, integer)',
                              'decisions_make_leaf(date)', 'decisions_drop_leaf(interval)',
                              'outbox_make_leaves(bigint, integer)', 'outbox_drop_leaf(interval)',
                              'outbox_redrive(uuid, text)'] loop
        execute format('revoke all on function %s from public', fn);
    end loop;

    if exists (select from pg_roles where rolname = 'claimfirst_triage') then
        grant select, insert on consumers, kafka_topics, decisions to claimfirst_triage;
        grant select, insert, update on processed_events to claimfirst_triage;
        grant select, insert on outbox_events to claimfirst_triage;
        grant usage, select on sequence outbox_events_id_seq to claimfirst_triage;
        grant select on claim_leaves, decision_leaves, outbox_leaves to claimfirst_triage;
        grant execute on function claims_make_leaf(date), claims_drop_leaf(interval), claims_thin(interval, integer),
            decisions_make_leaf(date), decisions_drop_leaf(interval), outbox_make_leaves(bigint, integer) to claimfirst_triage;
    end if;
    if exists (select from pg_roles where rolname = 'claimfirst_publisher') then
        grant select, update on outbox_events, outbox_leases to claimfirst_publisher;
        grant select, insert, update, delete on outbox_instances to claimfirst_publisher;
        grant select, insert on outbox_server_life to claimfirst_publisher;
        grant select on sequence outbox_events_id_seq to claimfirst_publisher;
        grant select on outbox_failed_archive, outbox_leaves to claimfirst_publisher;
        grant execute on function outbox_make_leaves(bigint, integer), outbox_drop_leaf(interval) to claimfirst_publisher;
    end if;
    if exists (select from pg_roles where rolname = 'claimfirst_reader') then
        grant usage on schema triagemate to claimfirst_reader;
        grant select on all tables in schema triagemate to claimfirst_reader;
        grant select on consumers, kafka_topics, processed_events, decisions, outbox_events, outbox_leases,
            outbox_instances, outbox_leaves, claim_leaves, decision_leaves, outbox_failed_archive,
            outbox_claims, outbox_failed to claimfirst_reader;
    end if;
end
$$;
