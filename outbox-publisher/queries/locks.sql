-- Of these transactions, those that hold no lock on the outbox: they have inserted nothing yet. One that
-- has ended holds none either; the caller believes an answer only when a later snapshot still names it.
select x from unnest($1::bigint[]) as x
 where not exists (
       select from pg_locks mine
         join pg_locks held on held.virtualtransaction = mine.virtualtransaction
        where mine.locktype = 'transactionid' and mine.transactionid::text::bigint = x % 4294967296
          and held.locktype = 'relation'
          and held.database = (select oid from pg_database where datname = current_database())
          and (held.relation in (select relid from pg_partition_tree('outbox_events'))
               or held.relation = 'outbox_events_id_seq'::regclass))
