-- Every pattern that matches a type, from the widest, joined by spaces: as
-- `EventType::patterns` of webhooks-core.
CREATE FUNCTION webhooks.patterns(p_type text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    v_patterns text := '*';
    v_dot      integer := 0;
    v_next     integer;
BEGIN
    LOOP
        v_next := strpos(substr(p_type, v_dot + 1), '.');
        EXIT WHEN v_next = 0;
        v_dot := v_dot + v_next;
        v_patterns := v_patterns || ' ' || left(p_type, v_dot) || '*';
    END LOOP;
    RETURN v_patterns || ' ' || p_type;
END $$;

-- Keeps events and a delivery for each endpoint that wants them. Returns a row for each that is new,
-- by its place from 1; if any was not, also what is stored under each id. `p_worker` is woken by its
-- own process: the others are notified, if there are any. An event without a time is accepted now.
CREATE FUNCTION webhooks.publish_all(
    p_ids text[], p_tenants text[], p_types text[], p_patterns text[], p_bodies text[],
    p_times timestamptz[], p_worker bigint
) RETURNS TABLE (place bigint, deliveries integer, is_new boolean, stored text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = webhooks, pg_temp SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_time timestamptz;
    v_new  bigint;
BEGIN
    -- Somebody's open transaction may have published one of the ids. A store waits for that only
    -- shortly, since it publishes for many callers at once.
    IF p_worker IS NOT NULL THEN
        PERFORM set_config('lock_timeout', '50ms', true);
    END IF;
    IF array_position(p_times, NULL) IS NOT NULL THEN
        p_times := ARRAY(SELECT coalesce(t.at, clock_timestamp()) FROM unnest(p_times) AS t(at));
    END IF;
    FOR v_time IN
        SELECT DISTINCT t.at FROM unnest(p_times) AS t(at)
        WHERE NOT EXISTS (SELECT 1 FROM partitions p WHERE p.start_at <= t.at AND t.at < p.end_at)
    LOOP
        PERFORM ensure_partition(v_time);
    END LOOP;
    -- Numbers follow the order in which events were given; keys are inserted in the order of ids, so
    -- that callers who publish the same ids at once don't wait for each other in a circle.
    RETURN QUERY
    WITH given AS MATERIALIZED (
        SELECT g.*, nextval('event_numbers') AS number
        FROM unnest(p_ids, p_tenants, p_types, p_patterns, p_bodies, p_times)
             WITH ORDINALITY AS g(id, tenant, type, patterns, body, accepted_at, place)
    ), fresh AS MATERIALIZED (
        INSERT INTO event_keys AS k (tenant, id, event, event_at)
        SELECT tenant, id, number, accepted_at FROM given ORDER BY tenant, id, place
        ON CONFLICT DO NOTHING RETURNING k.event
    ), wanted AS MATERIALIZED (
        SELECT DISTINCT g.number, g.accepted_at, s.endpoint, s.is_ordered
        FROM fresh JOIN given g ON g.number = fresh.event
        CROSS JOIN LATERAL (
            SELECT endpoint, is_ordered FROM subscriptions
            WHERE tenant = g.tenant AND pattern = ANY (string_to_array(g.patterns, ' '))
            OFFSET 0
        ) s
        ORDER BY g.number, s.endpoint
    ), queued AS (
        INSERT INTO waiting (id, endpoint, due_at, event, event_at, since)
        SELECT nextval('delivery_numbers'), endpoint,
               CASE WHEN is_ordered THEN 'epoch' ELSE accepted_at END,
               number, accepted_at, accepted_at
        FROM wanted
    ), counted AS (
        SELECT number, count(*)::integer AS deliveries FROM wanted GROUP BY number
    ), result AS MATERIALIZED (
        SELECT g.*, coalesce(c.deliveries, 0) AS deliveries
        FROM fresh JOIN given g ON g.number = fresh.event LEFT JOIN counted c USING (number)
    ), kept AS (
        INSERT INTO events (number, accepted_at, tenant, id, type, deliveries, body)
        SELECT number, accepted_at, tenant, id, type, deliveries, body FROM result
    )
    SELECT r.place, r.deliveries, true, NULL::text FROM result r;
    GET DIAGNOSTICS v_new = ROW_COUNT;
    IF v_new < cardinality(p_ids) THEN
        RETURN QUERY
        SELECT g.place, e.deliveries, false, e.body
        FROM unnest(p_ids, p_tenants) WITH ORDINALITY AS g(id, tenant, place)
        JOIN event_keys k ON k.tenant = g.tenant AND k.id = g.id
        JOIN events e ON e.number = k.event AND e.accepted_at = k.event_at;
    END IF;
    IF v_new > 0 THEN
        PERFORM notify_others(p_worker);
    END IF;
END $$;

-- Wakes the workers that live, when the transaction is committed: once, however often it is called.
CREATE FUNCTION webhooks.notify_others(p_worker bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = webhooks, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM workers WHERE id IS DISTINCT FROM p_worker) THEN
        PERFORM pg_notify('webhooks', '');
    END IF;
END $$;

-- A UUID version 7 (RFC 9562 §5.7).
CREATE FUNCTION webhooks.new_id() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT encode(set_bit(set_bit(overlay(
        uuid_send(gen_random_uuid())
        PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
        FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid::text
$$;

-- A time as `Timestamp` of webhooks-core writes it: RFC 3339 with as many digits as are needed.
CREATE FUNCTION webhooks.rfc3339(p_at timestamptz) RETURNS text LANGUAGE sql STABLE STRICT AS $$
    SELECT to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
        || coalesce('.' || nullif(rtrim(to_char(p_at, 'US'), '0'), ''), '') || 'Z'
$$;

-- Publishes an event in the caller's transaction, and returns its id. Roll back, and nothing is sent;
-- commit, and it is delivered. The same id again with the same content does nothing; with other
-- content it is an error.
--
--     SELECT webhooks.publish('order.paid', '{"order": 17}', source => 'shop', id => 'order-17-paid');
CREATE FUNCTION webhooks.publish(
    event_type text, payload json, source text DEFAULT NULL, id text DEFAULT NULL,
    tenant text DEFAULT 'default', occurred_at timestamptz DEFAULT clock_timestamp()
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = webhooks, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    v_id     text := coalesce(id, new_id());
    v_body   text;
    v_stored text;
    v_max    integer;
BEGIN
    IF event_type IS NULL OR octet_length(event_type) > 128
        OR event_type !~ '^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$' THEN
        RAISE EXCEPTION 'event type % is not names of A-Z, a-z, 0-9, _ and - joined by single dots, at most 128 bytes',
            quote_nullable(event_type) USING ERRCODE = 'invalid_parameter_value';
    ELSIF octet_length(v_id) > 128 OR v_id !~ '^[!-~]+$' OR strpos(v_id, '.') > 0 THEN
        RAISE EXCEPTION 'event id % is not 1 to 128 visible ASCII characters without dots',
            quote_nullable(v_id) USING ERRCODE = 'invalid_parameter_value';
    ELSIF tenant IS NULL OR tenant !~ '^[A-Za-z0-9_.-]{1,128}$' THEN
        RAISE EXCEPTION 'tenant % is not 1 to 128 of A-Z, a-z, 0-9, _, . and -',
            quote_nullable(tenant) USING ERRCODE = 'invalid_parameter_value';
    ELSIF payload IS NULL THEN
        RAISE EXCEPTION 'payload is missing; JSON null is written ''null'''
            USING ERRCODE = 'null_value_not_allowed';
    ELSIF occurred_at IS NULL OR occurred_at < 'epoch' OR occurred_at >= '10000-01-01 00:00:00Z' THEN
        RAISE EXCEPTION 'the time is not between 1970 and 9999'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    v_body := '{"event_id":' || to_json(v_id) || ',"event_type":' || to_json(event_type)
        || ',"payload":' || btrim(payload::text, E' \t\n\r')
        || ',"source":' || coalesce(to_json(source)::text, 'null')
        || ',"timestamp":"' || rfc3339(occurred_at) || '"}';
    SELECT max_body INTO v_max FROM settings;
    IF octet_length(v_body) > v_max THEN
        RAISE EXCEPTION 'the event''s body has % bytes; at most % are allowed',
            octet_length(v_body), v_max USING ERRCODE = 'program_limit_exceeded';
    END IF;
    SELECT stored INTO v_stored FROM publish_all(
        ARRAY[v_id], ARRAY[tenant], ARRAY[event_type], ARRAY[patterns(event_type)], ARRAY[v_body],
        ARRAY[NULL::timestamptz], NULL);
    IF NOT FOUND THEN
        -- Its key was forgotten just now; whoever publishes it again publishes it anew.
        RAISE EXCEPTION 'event id % was forgotten just now', quote_literal(v_id)
            USING ERRCODE = 'serialization_failure';
    END IF;
    -- The time may differ: who tries again often makes the event anew.
    IF v_stored <> v_body AND (
        (v_stored::json -> 'event_type')::text, (v_stored::json -> 'payload')::text,
        (v_stored::json -> 'source')::text
    ) IS DISTINCT FROM (
        (v_body::json -> 'event_type')::text, (v_body::json -> 'payload')::text,
        (v_body::json -> 'source')::text
    ) THEN
        RAISE EXCEPTION 'event id % was published before with other content', quote_literal(v_id)
            USING ERRCODE = 'unique_violation';
    END IF;
    RETURN v_id;
END $$;

-- Whoever may use the schema may publish events, and nothing else unless it is granted.
REVOKE EXECUTE ON FUNCTION webhooks.publish_all, webhooks.notify_others, webhooks.ensure_partition
    FROM PUBLIC;
