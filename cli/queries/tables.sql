-- What is read from Kafka, and the narrow part of the outbox that is compared with it. Temporary: not in the WAL, not
-- on a standby, gone with the session. A READ ONLY transaction may fill them.
set work_mem = '64MB';
set temp_buffers = '32MB';
-- Every join here is of whole sets. Leaves whose statistics are still empty would be joined row by row: minutes, not seconds.
set enable_nestloop = off;
create temporary table checked_input (
    partition    integer not null,
    "offset"     bigint  not null,
    event_id     uuid    not null, -- under which it is claimed
    unix_day     integer,
    digest       bytea   not null,
    timestamp_ms bigint
);
create temporary table checked_topic (
    topic   integer primary key,
    name    text    not null unique,
    is_read boolean not null -- its records are looked at
);
create temporary table checked_record (
    topic        integer not null,
    partition    integer not null,
    "offset"     bigint  not null,
    event_id     uuid,
    outbox_id    bigint,
    key_digest   bytea,
    value_digest bytea,
    timestamp_ms bigint,
    is_marked    boolean not null, -- has a header that only our publisher writes
    mentioned_id uuid              -- of one without: the event that its value says it is
);
create temporary table checked_first (
    topic          integer not null,
    event_id       uuid    not null,
    partition      integer not null,
    last_partition integer not null,
    "offset"       bigint  not null, -- of the first occurrence
    occurrences    bigint  not null
);
create temporary table checked_row (
    topic            integer not null, -- -1 where the topic came up after the topics were listed
    event_id         uuid    not null,
    id               bigint  not null,
    bucket           smallint not null,
    lane             smallint not null,
    status           outbox_status not null,
    is_ordered       boolean not null,
    is_redriven      boolean not null,
    is_dead_letter   boolean not null,
    xid              bigint  not null,
    ended_below      bigint,           -- transactions below had ended when it was inserted
    source_topic_id  smallint,
    source_partition integer,
    source_offset    bigint,
    key_digest       bytea,
    value_digest     bytea,
    made_ms          bigint  not null
)
