-- All patterns that match an event type, from the widest on, joined by spaces. It must match
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

-- Stores events, with a delivery for each endpoint that wants them. Each event is of one kind: a
-- tenant, a type, the type's patterns, channels, and the ids of the endpoints that alone get it.
-- Lists in a kind are texts joined by spaces; no channels and no such endpoints are NULL. Kinds are
-- counted from 1.
--
-- Deliveries of an event with a time in `p_deliver_ats` that is later than its own are scheduled:
-- they are due then, and not preclaimed. `p_deliver_ats`, `p_tags` and `p_traces` are NULL if no event
-- has any.
--
-- Deliveries to the endpoints of `p_preclaimable` are preclaimed unless the endpoint is ordered:
-- they are claimed at once for `p_worker`, with `p_token` and for `p_lease`. The publishing process
-- wakes its own worker. The other workers are notified if there are deliveries that are not
-- preclaimed. An event without a time is accepted now.
--
-- Returns, in one row of arrays:
--   numbers       the number of each event; NULL if it had been published before
--   wanted        how many endpoints want each kind
--   preclaimed_*  for each endpoint whose deliveries of a kind are preclaimed: the kind, the
--                 endpoint, and the ordinal of its delivery among those of such an event: from 0,
--                 the last 20 bits of the delivery's id
--   waiting_*     for each endpoint that has, or may have, deliveries of a kind which are not
--                 preclaimed: the kind and the endpoint
--   old_*         for each event that had been published before: its place from 1, how many
--                 deliveries it has, its number, and its stored body
CREATE FUNCTION webhooks.publish_all(
    p_ids text[], p_bodies text[], p_times timestamptz[], p_kinds integer[],
    p_tenants text[], p_types text[], p_patterns text[], p_channels text[], p_only text[],
    p_tags text[], p_deliver_ats timestamptz[], p_worker bigint,
    p_preclaimable bigint[], p_lease interval, p_token bigint, p_traces text[] DEFAULT NULL,
    OUT numbers bigint[], OUT wanted integer[],
    OUT preclaimed_kinds integer[], OUT preclaimed_endpoints bigint[],
    OUT preclaimed_ordinals integer[],
    OUT waiting_kinds integer[], OUT waiting_endpoints bigint[],
    OUT old_places integer[], OUT old_deliveries integer[], OUT old_numbers bigint[],
    OUT old_bodies text[]
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = webhooks, pg_temp SET enable_seqscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_time        timestamptz;
    v_is_inserted boolean := false;
    v_kinds       integer[];
    v_endpoints   bigint[];
    v_ordinals    integer[];
    v_ordered     boolean[];
    v_preclaimed  boolean[];
    v_until       timestamptz;
BEGIN
    -- An open transaction may have published one of the ids. A store waits for it only shortly,
    -- since it publishes for many callers at once. `BLOCKED_TRIES` of publish.rs depends on this
    -- time.
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
    -- A feed ends before the numbers that this transaction may take (see feed_end). Its first lock
    -- covers those of all its publishes; a store makes one in a transaction.
    IF p_worker IS NOT NULL OR coalesce(current_setting('webhooks.publishes', true), '') = '' THEN
        PERFORM pg_advisory_xact_lock_shared(
            730500::bigint << 43 | last_value - CASE WHEN is_called THEN 0 ELSE 1 END)
        FROM event_numbers;
        IF p_worker IS NULL THEN
            PERFORM set_config('webhooks.publishes', 'on', true);
        END IF;
    END IF;
    -- Numbers follow the order of the events in the arrays. Keys are inserted in the order of ids,
    -- so that callers who publish the same ids at once never wait for each other in a circle.
    numbers := ARRAY(SELECT nextval('event_numbers') FROM generate_series(1, cardinality(p_ids)));
    IF p_worker IS NOT NULL THEN
        -- Most often there are no conflicts, and then ON CONFLICT takes longer than this. A
        -- caller's own transaction does without the block, since each block is a subtransaction in
        -- it.
        BEGIN
            INSERT INTO event_keys (id, tenant, event, event_at)
            SELECT g.id, p_tenants[g.kind], g.number, g.at
            FROM unnest(p_ids, p_kinds, numbers, p_times) AS g(id, kind, number, at)
            ORDER BY 1, 2;
            v_is_inserted := true;
        EXCEPTION WHEN unique_violation THEN
            NULL;
        END;
    END IF;
    IF NOT v_is_inserted THEN
        WITH fresh AS (
            INSERT INTO event_keys AS k (id, tenant, event, event_at)
            SELECT g.id, p_tenants[g.kind], g.number, g.at
            FROM unnest(p_ids, p_kinds, numbers, p_times) AS g(id, kind, number, at)
            ORDER BY 1, 2, 3
            ON CONFLICT DO NOTHING RETURNING k.event
        )
        SELECT array_agg(fresh.event ORDER BY g.place) INTO numbers
        FROM unnest(numbers) WITH ORDINALITY AS g(number, place)
        LEFT JOIN fresh ON fresh.event = g.number;
    END IF;
    SELECT array_agg(w.kind), array_agg(w.endpoint), array_agg(w.ordinal), array_agg(w.is_ordered),
           array_agg(w.is_preclaimed),
           array_agg(w.kind) FILTER (WHERE w.is_preclaimed),
           array_agg(w.endpoint) FILTER (WHERE w.is_preclaimed),
           array_agg(w.ordinal) FILTER (WHERE w.is_preclaimed),
           array_agg(w.kind) FILTER (WHERE NOT w.is_preclaimed OR p_deliver_ats IS NOT NULL),
           array_agg(w.endpoint) FILTER (WHERE NOT w.is_preclaimed OR p_deliver_ats IS NOT NULL)
    INTO v_kinds, v_endpoints, v_ordinals, v_ordered, v_preclaimed,
         preclaimed_kinds, preclaimed_endpoints, preclaimed_ordinals,
         waiting_kinds, waiting_endpoints
    FROM (
        SELECT k.kind::integer, s.endpoint, s.is_ordered,
               NOT s.is_ordered AND s.endpoint = ANY (p_preclaimable) AS is_preclaimed,
               (row_number() OVER (PARTITION BY k.kind ORDER BY s.endpoint) - 1)::integer AS ordinal
        FROM unnest(p_tenants, p_patterns, p_channels, p_only)
             WITH ORDINALITY AS k(tenant, patterns, channels, only_ids, kind)
        CROSS JOIN LATERAL (
            SELECT DISTINCT endpoint, is_ordered FROM subscriptions
            WHERE k.only_ids IS NULL
              AND tenant = k.tenant AND pattern = ANY (string_to_array(k.patterns, ' '))
              AND (channels IS NULL OR channels && string_to_array(k.channels, ' '))
            UNION ALL
            SELECT number, is_ordered FROM endpoints
            WHERE k.only_ids IS NOT NULL AND id = ANY (string_to_array(k.only_ids, ' '))
              AND tenant = k.tenant AND is_current AND is_open
        ) s
    ) w;
    IF 1048575 < ANY (v_ordinals) THEN
        RAISE EXCEPTION 'more than 1048576 endpoints want an event'
            USING ERRCODE = 'program_limit_exceeded';
    END IF;
    wanted := ARRAY(
        SELECT count(w.kind)::integer
        FROM generate_series(1, cardinality(p_types)) AS k(kind)
        LEFT JOIN unnest(v_kinds) AS w(kind) USING (kind)
        GROUP BY kind ORDER BY kind);
    v_until := lease_clock(p_times[1]) + p_lease;
    INSERT INTO pending_deliveries (id, endpoint, due_at, event_at, queued_at, leased_until, token,
                                    bytes, is_scheduled)
    SELECT first_delivery(g.number) + w.ordinal, w.endpoint,
           CASE WHEN w.is_ordered AND g.later IS NULL THEN 'epoch' ELSE coalesce(g.later, g.at) END,
           g.at, coalesce(g.later, g.at),
           CASE WHEN w.is_preclaimed AND g.later IS NULL THEN v_until END,
           CASE WHEN w.is_preclaimed AND g.later IS NULL THEN p_token END,
           octet_length(g.body),
           CASE WHEN g.later IS NOT NULL THEN true END
    FROM (SELECT number, kind, at, body, CASE WHEN deliver_at > at THEN deliver_at END AS later
          FROM unnest(numbers, p_kinds, p_times, p_deliver_ats, p_bodies)
               AS u(number, kind, at, deliver_at, body)) g
    JOIN unnest(v_kinds, v_endpoints, v_ordinals, v_ordered, v_preclaimed)
         AS w(kind, endpoint, ordinal, is_ordered, is_preclaimed) USING (kind)
    WHERE g.number IS NOT NULL;
    INSERT INTO events (number, accepted_at, tenant, id, type, deliveries, body, channels, tags,
                        deliver_at, only_ids, trace)
    SELECT g.number, g.at, p_tenants[g.kind], g.id, p_types[g.kind], wanted[g.kind], g.body,
           string_to_array(p_channels[g.kind], ' '), string_to_array(g.tags, ' '), g.deliver_at,
           string_to_array(p_only[g.kind], ' '), g.trace
    FROM unnest(numbers, p_times, p_ids, p_kinds, p_bodies, p_tags, p_deliver_ats,
                p_traces)
         AS g(number, at, id, kind, body, tags, deliver_at, trace)
    WHERE g.number IS NOT NULL;
    IF array_position(numbers, NULL) IS NOT NULL THEN
        SELECT array_agg(g.place), array_agg(e.deliveries), array_agg(e.number), array_agg(e.body)
        INTO old_places, old_deliveries, old_numbers, old_bodies
        FROM unnest(p_ids, p_kinds, numbers) WITH ORDINALITY AS g(id, kind, number, place)
        JOIN event_keys k ON k.id = g.id AND k.tenant = p_tenants[g.kind]
        JOIN events e ON e.number = k.event AND e.accepted_at = k.event_at
        WHERE g.number IS NULL;
        IF cardinality(array_positions(numbers, NULL)) > coalesce(cardinality(old_places), 0) THEN
            -- A prune has deleted its key since the INSERT. Another try publishes it as a new
            -- event.
            RAISE EXCEPTION 'an event id was forgotten just now'
                USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
    IF waiting_endpoints IS NOT NULL AND array_remove(numbers, NULL) <> '{}' THEN
        PERFORM notify_others(p_worker, ARRAY(SELECT DISTINCT unnest(waiting_endpoints)));
    END IF;
    -- Last, since it locks rows until the end of the transaction. The store's publishes take turns
    -- for a moment; in a caller's own transaction, nobody may have to wait for its end.
    INSERT INTO figures AS f (endpoint, kind, at, writer, count)
    SELECT w.endpoint, 'accepted', k.at, coalesce(-p_worker, own_writer()), sum(k.count)
    FROM (
        SELECT g.kind, date_bin('1 minute', g.at, 'epoch') AS at, count(*) AS count
        FROM unnest(numbers, p_kinds, p_times) AS g(number, kind, at)
        WHERE g.number IS NOT NULL GROUP BY 1, 2
    ) k
    JOIN unnest(v_kinds, v_endpoints) AS w(kind, endpoint) USING (kind)
    GROUP BY w.endpoint, k.at ORDER BY w.endpoint, k.at
    ON CONFLICT (endpoint, kind, at, writer) DO UPDATE SET count = f.count + excluded.count;
END $$;

-- Returns the number of the last event of which, and of those before it, no open transaction can store
-- one any more. Events become visible in another order than that of their numbers. So each transaction
-- takes a shared advisory lock before its first number; the last 43 bits of the lock's key are a number
-- that was taken before.
--
-- The sequence is read first: a later transaction takes later numbers. A reader must take its snapshot
-- after this call.
CREATE FUNCTION webhooks.feed_end() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = webhooks, pg_temp AS $$
DECLARE
    v_end bigint;
BEGIN
    SELECT last_value - CASE WHEN is_called THEN 0 ELSE 1 END INTO v_end FROM event_numbers;
    RETURN least(v_end, (
        SELECT min(l.key & ((1::bigint << 43) - 1))
        FROM (
            SELECT classid::bigint << 32 | objid::bigint AS key FROM pg_locks
            WHERE locktype = 'advisory' AND objsubid = 1
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        ) l
        WHERE l.key >> 43 = 730500));
END $$;

-- Returns the places, from 1, of the events whose keys an open transaction has inserted. It waits
-- for each of them 1 ms at most, and stores nothing.
CREATE FUNCTION webhooks.blocked_keys(p_ids text[], p_tenants text[]) RETURNS integer[]
LANGUAGE plpgsql SET search_path = webhooks, pg_temp SET lock_timeout = '1ms' AS $$
DECLARE
    v_blocked integer[] := '{}';
BEGIN
    FOR v_place IN 1 .. cardinality(p_ids) LOOP
        BEGIN
            INSERT INTO event_keys (id, tenant, event, event_at)
            VALUES (p_ids[v_place], p_tenants[v_place], 0, 'epoch');
            -- No open transaction has it. The exception undoes the INSERT.
            RAISE EXCEPTION USING ERRCODE = 'triggered_action_exception';
        EXCEPTION
            WHEN lock_not_available THEN v_blocked := v_blocked || v_place;
            WHEN unique_violation OR triggered_action_exception THEN NULL;
        END;
    END LOOP;
    RETURN v_blocked;
END $$;

-- Wakes the other live workers when the transaction is committed, for these endpoints, or for all of
-- them. Several calls with the same endpoints in one transaction are one notification.
CREATE FUNCTION webhooks.notify_others(p_worker bigint, p_endpoints bigint[] DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = webhooks, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM workers WHERE id IS DISTINCT FROM p_worker) THEN
        -- The text of a notification has less than 8,000 bytes.
        PERFORM pg_notify('webhooks', CASE WHEN cardinality(p_endpoints) <= 300
            THEN array_to_string(p_endpoints, ' ') ELSE '' END);
    END IF;
END $$;

-- A UUID version 7 (RFC 9562 §5.7).
CREATE FUNCTION webhooks.new_id() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT encode(set_bit(set_bit(overlay(
        uuid_send(gen_random_uuid())
        PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
        FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid::text
$$;

-- Returns a time as `Timestamp` of webhooks-core writes it: RFC 3339 with as many digits as it
-- needs.
CREATE FUNCTION webhooks.rfc3339(p_at timestamptz) RETURNS text LANGUAGE sql STABLE STRICT AS $$
    SELECT to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
        || coalesce('.' || nullif(rtrim(to_char(p_at, 'US'), '0'), ''), '') || 'Z'
$$;

-- Returns the body of an event without the time, which comes last in it. Bodies are compared as
-- texts, because their JSON may stand for characters that no text of PostgreSQL holds: "\u0000",
-- and halves of surrogate pairs.
CREATE FUNCTION webhooks.timeless(p_body text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT left(p_body, -length(substring(right(p_body, 64) FROM ',"timestamp":"[^"]*"}$')))
$$;

-- Whether a number, as JSON writes it and without a sign, is out of range for `Payload` of
-- webhooks-core, that is, for serde_json 1 with `float_roundtrip`.
CREATE FUNCTION webhooks.is_out_of_range(p_number text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = webhooks, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    -- The digits before and behind the point, and the exponent.
    v_parts    text[] := regexp_match(p_number, '^([0-9]+)(?:\.([0-9]+))?(?:[eE]([-+]?[0-9]+))?$');
    v_exponent text := coalesce(v_parts[3], '0');
    v_digits   text := ltrim(v_parts[1] || coalesce(v_parts[2], ''), '0');
    v_places   bigint;
BEGIN
    IF v_digits = '' THEN
        RETURN false;
    ELSIF octet_length(ltrim(v_exponent, '-+0')) > 10 THEN
        RETURN left(v_exponent, 1) <> '-';
    END IF;
    -- The number is less than ten to the power of v_places, and at least a tenth of that.
    v_places := octet_length(v_digits) - octet_length(coalesce(v_parts[2], '')) + v_exponent::bigint;
    IF v_places <> 309 THEN
        RETURN v_places > 309;
    END IF;
    -- Its whole part has 309 digits. A number of 2^1024 - 2^970 or more is rounded to infinity as 64-bit
    -- floating point, and a smaller one is not.
    RETURN rpad(left(v_digits, 309), 309, '0') COLLATE "C" >= (
        '179769313486231580793728971405303415079934132710037826936173778980444968292764'
        || '750946649017977587207096330286416692887910946555547851940402630657488671505820'
        || '681908902000708383676273854845817711531764475730270069855571366959622842914819'
        || '860834936475292719074168444365510704342711559699508093042880177904174497792') COLLATE "C";
END $$;

-- Returns why receivers cannot read a valid JSON text; NULL if they can. It must refuse the same
-- texts as `Payload` of webhooks-core: halves of surrogate pairs, numbers beyond 64-bit floating
-- point, keys that serde_json reserves, and more than 126 nested arrays and objects. Each check
-- begins with a cheap test that most texts pass.
CREATE FUNCTION webhooks.unreadable(p_json text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = webhooks, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    -- Without escaped backslashes and quotes: each quote that is left begins or ends a text.
    v_json     text := replace(replace(p_json, '\\', '  '), '\"', '  ');
    v_key      text;
    v_brackets text;
BEGIN
    IF strpos(v_json, '\u') > 0 AND v_json ~ '\\u[dD][89a-fA-F]' AND regexp_replace(v_json,
        '\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}', ' ', 'g') ~ '\\u[dD][89a-fA-F]'
    THEN
        RETURN 'half of a surrogate pair';
    END IF;
    IF strpos(v_json, '"$') > 0 OR strpos(v_json, '"\u0024') > 0 THEN
        -- Each character may be escaped.
        SELECT string_agg(format('(?:[%s]|\\u00(?:%s|%s))', c, to_hex(ascii(c)), upper(to_hex(ascii(c)))),
            '' ORDER BY n) INTO v_key
        FROM regexp_split_to_table('$serde_json::private::RawValue', '') WITH ORDINALITY AS k(c, n);
        IF v_json ~ ('"(?:\$serde_json::private::Number|' || v_key || ')"[ \t\n\r]*:') THEN
            RETURN 'a key that serde_json keeps for itself';
        END IF;
    END IF;
    IF octet_length(v_json) - octet_length(replace(replace(v_json, '[', ''), '{', '')) > 126 THEN
        v_brackets := translate(
            regexp_replace(v_json, '(?:"[^"]*"|[^][{}"])+', '', 'g'), '{}', '[]');
        -- Each round removes the innermost brackets.
        FOR v_level IN 1 .. 126 LOOP
            EXIT WHEN v_brackets = '';
            v_brackets := replace(v_brackets, '[]', '');
        END LOOP;
        IF v_brackets <> '' THEN
            RETURN 'more than 126 arrays and objects in each other';
        END IF;
    END IF;
    -- A number with fewer than a hundred digits and an exponent below 100 is less than 10^308.
    IF v_json ~ '[0-9][eE]\+?[0-9]{3}|[0-9]{100}' AND EXISTS (
        SELECT 1 FROM regexp_matches(regexp_replace(v_json, '"[^"]*"', '', 'g'),
            '[0-9.]+[eE][-+]?[0-9]{3,}|[0-9.]{100,}(?:[eE][-+]?[0-9]+)?', 'g') AS found(number)
        WHERE is_out_of_range(number[1])
    ) THEN
        RETURN 'a number out of range';
    END IF;
    RETURN NULL;
END $$;

-- Returns labels, channels or tags, sorted, each once, and joined by spaces; NULL if there are none.
-- It refuses the same ones as `Channel` and `Tag` of webhooks-core.
CREATE FUNCTION webhooks.labels(p_labels text[], p_kind text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = webhooks, pg_temp AS $$
DECLARE
    v_label text;
BEGIN
    IF cardinality(p_labels) > 16 THEN
        RAISE EXCEPTION 'there are % %s; at most 16 are allowed', cardinality(p_labels), p_kind
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOREACH v_label IN ARRAY coalesce(p_labels, '{}') LOOP
        IF v_label IS NULL OR v_label !~ '^[A-Za-z0-9_.:-]{1,128}$' THEN
            RAISE EXCEPTION '% % is not 1 to 128 of A-Z, a-z, 0-9, _, ., : and -', p_kind,
                quote_nullable(v_label) USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END LOOP;
    RETURN (SELECT string_agg(DISTINCT label COLLATE "C", ' ' ORDER BY label COLLATE "C")
            FROM unnest(p_labels) AS l(label));
END $$;

-- Publishes an event in the caller's transaction. The source is a JSON text, or NULL. Returns the
-- status 'created', 'duplicate', 'conflict' (another event has the id), 'too far ahead' or 'too
-- large'. With the last three, nothing was stored, and the transaction can go on.
CREATE FUNCTION webhooks.publish_event(
    p_type text, p_payload json, p_source json, p_id text, p_tenant text, p_occurred_at timestamptz,
    p_channels text[] DEFAULT NULL, p_tags text[] DEFAULT NULL,
    p_deliver_at timestamptz DEFAULT NULL, p_only text[] DEFAULT NULL, p_trace text DEFAULT NULL,
    OUT status text, OUT deliveries integer, OUT body_bytes integer, OUT max_body integer
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = webhooks, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    v_body     text;
    v_fault    text;
    v_channels text;
    v_tags     text;
    v_kept     record;
BEGIN
    IF p_type IS NULL OR octet_length(p_type) > 128
        OR p_type !~ '^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$' THEN
        RAISE EXCEPTION 'event type % is not names of A-Z, a-z, 0-9, _ and - joined by single dots, at most 128 bytes',
            quote_nullable(p_type) USING ERRCODE = 'invalid_parameter_value';
    ELSIF p_id IS NULL OR octet_length(p_id) > 128 OR p_id !~ '^[!-~]+$' OR strpos(p_id, '.') > 0 THEN
        RAISE EXCEPTION 'event id % is not 1 to 128 visible ASCII characters without dots',
            quote_nullable(p_id) USING ERRCODE = 'invalid_parameter_value';
    ELSIF p_tenant IS NULL OR p_tenant !~ '^[A-Za-z0-9_.-]{1,128}$' THEN
        RAISE EXCEPTION 'tenant % is not 1 to 128 of A-Z, a-z, 0-9, _, . and -',
            quote_nullable(p_tenant) USING ERRCODE = 'invalid_parameter_value';
    ELSIF p_payload IS NULL THEN
        RAISE EXCEPTION 'payload is missing; JSON null is written ''null'''
            USING ERRCODE = 'null_value_not_allowed';
    ELSIF p_source IS NOT NULL AND json_typeof(p_source) <> 'string' THEN
        RAISE EXCEPTION 'the source is not a text' USING ERRCODE = 'invalid_parameter_value';
    ELSIF p_occurred_at IS NULL OR p_occurred_at < 'epoch'
        OR p_occurred_at >= '10000-01-01 00:00:00Z' THEN
        RAISE EXCEPTION 'the time is not between 1970 and 9999'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF p_deliver_at > clock_timestamp() + interval '90 days' THEN
        status := 'too far ahead';
        RETURN;
    END IF;
    IF p_deliver_at < 'epoch' THEN
        p_deliver_at := 'epoch';
    END IF;
    v_channels := labels(p_channels, 'channel');
    v_tags := labels(p_tags, 'tag');
    v_body := '{"event_id":' || to_json(p_id) || ',"event_type":' || to_json(p_type)
        || ',"payload":' || btrim(p_payload::text, E' \t\n\r')
        || ',"source":' || coalesce(btrim(p_source::text, E' \t\n\r'), 'null')
        || ',"timestamp":"' || rfc3339(p_occurred_at) || '"}';
    body_bytes := octet_length(v_body);
    SELECT s.max_body INTO max_body FROM settings s;
    IF body_bytes > max_body THEN
        status := 'too large';
        RETURN;
    END IF;
    -- After the check of the size, since it takes some time for each byte.
    v_fault := coalesce('payload is JSON that receivers cannot read: ' || unreadable(p_payload::text),
        'the source is a text that receivers cannot read: ' || unreadable(p_source::text));
    IF v_fault IS NOT NULL THEN
        RAISE EXCEPTION '%', v_fault USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT * INTO v_kept FROM publish_all(
        ARRAY[p_id], ARRAY[v_body], ARRAY[NULL::timestamptz], ARRAY[1],
        ARRAY[p_tenant], ARRAY[p_type], ARRAY[patterns(p_type)], ARRAY[v_channels],
        ARRAY[array_to_string(p_only, ' ')], ARRAY[v_tags], ARRAY[p_deliver_at], NULL, '{}', NULL,
        NULL, ARRAY[p_trace]);
    IF v_kept.numbers[1] IS NOT NULL THEN
        status := 'created';
        deliveries := v_kept.wanted[1];
    -- The times may differ: a caller who tries again often makes the event again.
    ELSIF timeless(v_kept.old_bodies[1]) IS DISTINCT FROM timeless(v_body) THEN
        status := 'conflict';
    ELSE
        status := 'duplicate';
        deliveries := v_kept.old_deliveries[1];
    END IF;
END $$;

-- Publishes an event in the caller's transaction, and returns its id. Roll back, and nothing is
-- sent; commit, and it is delivered. The same id with the same content changes nothing; with other
-- content it is an error.
--
--     SELECT webhooks.publish('order.paid', '{"order": 17}', source => 'shop', id => 'order-17-paid');
--
-- Endpoints with channels get it if they have one of its channels. Nothing is delivered before
-- `deliver_at`, which is at most 90 days ahead.
CREATE FUNCTION webhooks.publish(
    event_type text, payload json, source text DEFAULT NULL, id text DEFAULT NULL,
    tenant text DEFAULT 'default', occurred_at timestamptz DEFAULT clock_timestamp(),
    channels text[] DEFAULT NULL, tags text[] DEFAULT NULL, deliver_at timestamptz DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = webhooks, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    v_id   text := coalesce(id, new_id());
    v_kept record;
BEGIN
    SELECT * INTO v_kept
    FROM publish_event(event_type, payload, to_json(source), v_id, tenant, occurred_at, channels,
                       tags, deliver_at);
    IF v_kept.status = 'too large' THEN
        RAISE EXCEPTION 'the event''s body has % bytes; at most % are allowed',
            v_kept.body_bytes, v_kept.max_body USING ERRCODE = 'program_limit_exceeded';
    ELSIF v_kept.status = 'too far ahead' THEN
        RAISE EXCEPTION 'the time of delivery is more than 90 days ahead; publish it later'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF v_kept.status = 'conflict' THEN
        RAISE EXCEPTION 'event id % was published before with other content, or with content that was expunged',
            quote_literal(v_id)
            USING ERRCODE = 'unique_violation';
    END IF;
    RETURN v_id;
END $$;

-- A role that may use the schema may publish events. Everything else must be granted.
REVOKE EXECUTE ON FUNCTION webhooks.publish_all, webhooks.notify_others, webhooks.ensure_partition
    FROM PUBLIC;
