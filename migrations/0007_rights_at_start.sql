-- Why: what the services ask for when they start, and their roles were not let. Run as their own roles they
-- never became ready; run as the schema's owner nobody saw it.

-- A service that does not migrate asks which migrations have run. The list is sqlx's: where another tool
-- applies these files there is none, and nothing to grant.
do $$
declare
    name text;
begin
    foreach name in array array['claimfirst_triage', 'claimfirst_publisher', 'claimfirst_reader'] loop
        if exists (select from pg_roles where rolname = name) and to_regclass('_sqlx_migrations') is not null then
            execute format('grant select on _sqlx_migrations to %I', name);
        end if;
    end loop;
end
$$;

-- Of publishers that start together the second one reads the life of the server that the first one has just
-- written, past its own snapshot: only an update of that row returns it.
do $$
begin
    if exists (select from pg_roles where rolname = 'claimfirst_publisher') then
        grant update on outbox_server_life to claimfirst_publisher;
    end if;
end
$$;
