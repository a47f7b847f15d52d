-- Why: Kafka's partitioner, our buckets and our lanes rest on one hash, so that a Java producer, the
-- services and a person in psql agree about where a key belongs. The functions are fixed for ever:
-- another result would put one key under two owners.

-- Kafka's murmur2 (org.apache.kafka.common.utils.Utils.murmur2), as a signed 32-bit number.
create function kafka_murmur2(data bytea) returns integer
    language plpgsql immutable strict parallel safe
as $$
declare
    m    constant bigint := 1540483477; -- 0x5bd1e995; below 2^31, so that no product leaves 63 bits
    mask constant bigint := 4294967295;
    len  constant integer := octet_length(data);
    h    bigint := 2538058380 # len;    -- 0x9747b28c is Kafka's seed
    k    bigint;
    i    integer := 0;
    rest integer;
begin
    while i + 4 <= len loop
        k := get_byte(data, i)::bigint | (get_byte(data, i + 1)::bigint << 8)
           | (get_byte(data, i + 2)::bigint << 16) | (get_byte(data, i + 3)::bigint << 24);
        k := (k * m) & mask;
        k := k # (k >> 24);
        k := (k * m) & mask;
        h := ((h * m) & mask) # k;
        i := i + 4;
    end loop;
    rest := len - i;
    if rest = 3 then h := h # (get_byte(data, i + 2)::bigint << 16); end if;
    if rest >= 2 then h := h # (get_byte(data, i + 1)::bigint << 8); end if;
    if rest >= 1 then h := ((h # get_byte(data, i)::bigint) * m) & mask; end if;
    h := h # (h >> 13);
    h := (h * m) & mask;
    h := h # (h >> 15);
    return case when h >= 2147483648 then h - 4294967296 else h end;
end
$$;

-- The hash slot (0 to 63) of a row. A null key belongs to nobody and takes the slot of its event id.
create function outbox_bucket(key bytea, event_id uuid) returns smallint
    language sql immutable parallel safe
return ((kafka_murmur2(coalesce(key, uuid_send(event_id))) & 2147483647) % 64)::smallint;

-- Names a (topic, key) in four bytes: what is blocked is a (topic, key), and an index on fixed-width
-- columns keeps the settle cheap. Collisions are told apart by the columns themselves.
create function outbox_lane_hash(topic text, key bytea, event_id uuid) returns integer
    language sql immutable parallel safe
return kafka_murmur2(convert_to(topic, 'UTF8') || '\x00'::bytea || coalesce(key, uuid_send(event_id)));

-- What an input record was decided about, for people: jsonb where the bytes are JSON, else null.
-- A payload is stored as it was received, so it may be no JSON at all, or hold \u0000, which jsonb refuses.
create function bytes_as_jsonb(data bytea) returns jsonb
    language plpgsql immutable strict parallel safe
as $$
begin
    return convert_from(data, 'UTF8')::jsonb;
exception when data_exception then
    return null;
end
$$;

-- The same for keys: text where the bytes are UTF-8 without NUL, else a hex form.
create function bytes_as_text(data bytea) returns text
    language plpgsql immutable strict parallel safe
as $$
begin
    return convert_from(data, 'UTF8');
exception when data_exception then
    return '0x' || encode(data, 'hex');
end
$$;
