-- The place of an event in a distributed trace: the values of the headers traceparent and, behind a
-- space, tracestate. NULL if it was published without one. Readers leave out a text that is none.
ALTER TABLE webhooks.events ADD COLUMN trace text;

-- The three functions below are those of before, which their files explain, and take or return the
-- trace, too. Programs of an earlier version call them as before.
DROP FUNCTION webhooks.publish_all(
    text[], text[], timestamptz[], integer[], text[], text[], text[], text[], text[], text[],
    timestamptz[], bigint, bigint[], interval, bigint);
DROP FUNCTION webhooks.publish_event(
    text, json, json, text, text, timestamptz, text[], text[], timestamptz, text[]);
DROP FUNCTION webhooks.claim(
    timestamptz, interval, bigint, integer, bigint, bigint[], integer[], bigint, bigint[]);

-- See 0003_publish.sql. `p_traces` is NULL if no event has any.
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

-- See 0003_publish.sql.
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

-- See 0004_claim.sql.
CREATE FUNCTION webhooks.claim(
    p_now timestamptz, p_lease interval, p_token bigint, p_limit integer, p_bytes bigint,
    p_endpoints bigint[], p_limits integer[], p_worker bigint, p_workers bigint[]
) RETURNS TABLE (
    id bigint, endpoint bigint, version bigint, queued_at timestamptz, attempts integer,
    attempts_before_replay integer, event_id text, tenant text, type text, body text,
    trace text, is_failing boolean)
LANGUAGE plpgsql
SET search_path = webhooks, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_endpoints    bigint[];
    v_limits       integer[];
    v_dues         timestamptz[];
    v_ids          bigint[];
    v_unsorted     bigint[];
    v_ids_unsorted bigint[];
    v_ordered      bigint[];
    v_claimed      bigint[];
    v_places       bigint[];
    v_count        integer;
    v_bytes        bigint;
    v_clock        timestamptz := lease_clock(p_now);
    -- The due time of an ordered endpoint's delivery while it is in flight: just before the epoch,
    -- which all its others have. So it comes first, however many older ones a replay, or a publish
    -- that commits later, puts before it; and one lookup tells that nothing else may be claimed.
    c_front        CONSTANT timestamptz := '1969-12-31 23:59:59.999999+00';
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    -- Of an ordered endpoint, only the first delivery is claimed, and none while one is in flight.
    SELECT array_agg(number ORDER BY place) FILTER (WHERE is_claimable),
           array_agg(most ORDER BY place) FILTER (WHERE is_claimable),
           array_agg(bound_due ORDER BY place) FILTER (WHERE is_claimable),
           array_agg(bound_id ORDER BY place) FILTER (WHERE is_claimable),
           array_agg(number) FILTER (WHERE is_unsorted),
           array_agg(number) FILTER (WHERE is_claimable AND is_ordered)
    INTO v_endpoints, v_limits, v_dues, v_ids, v_unsorted, v_ordered
    FROM (
        SELECT number, place, is_ordered, is_unsorted,
               least(p_limits[place], max_claim) AS most,
               is_open AND NOT is_unsorted AS is_claimable,
               CASE WHEN is_ordered THEN first_due ELSE p_now END AS bound_due,
               CASE WHEN is_ordered THEN first_id ELSE 9223372036854775807 END AS bound_id
        FROM heads(p_endpoints, p_worker, p_workers)
        WHERE is_unsorted OR (is_open AND first_due <= p_now AND NOT (is_ordered AND (
            blocked_until > p_now OR EXISTS (
                SELECT 1 FROM pending_deliveries w
                WHERE w.id = first_id AND w.leased_until > v_clock AND w.token <> p_token))))
    ) plan;
    -- Sorts some deliveries of unsorted endpoints, by removing their due times. Nothing is claimed
    -- for an endpoint before all of its deliveries are sorted. Rows are locked in the order of their
    -- ids, as settlements do.
    IF v_unsorted IS NOT NULL THEN
        v_ids_unsorted := ARRAY(
            SELECT unsorted.id FROM unnest(v_unsorted) AS u(endpoint) CROSS JOIN LATERAL (
                SELECT w.id FROM pending_deliveries w
                WHERE w.endpoint = u.endpoint AND w.due_at > 'epoch'
                  AND (w.is_scheduled IS NULL OR w.leased_until IS NOT NULL)
                ORDER BY w.due_at, w.id LIMIT 1000
            ) unsorted LIMIT 1000);
        PERFORM 1 FROM pending_deliveries w WHERE w.id = ANY (v_ids_unsorted)
        ORDER BY w.id FOR UPDATE;
        UPDATE pending_deliveries w
        SET due_at = CASE WHEN w.leased_until > v_clock THEN c_front ELSE 'epoch' END
        WHERE w.id = ANY (v_ids_unsorted);
    END IF;
    -- An ordered endpoint may go to another worker meanwhile. So a claim for it locks its row, as
    -- settlements of retries do, and checks again: the endpoint must not be blocked, and its first
    -- delivery must be the same and not leased. A claim never waits for that lock, so that no
    -- transactions wait for each other in a circle.
    IF v_ordered IS NOT NULL THEN
        v_ordered := ARRAY(
            SELECT e.number FROM endpoints e
            WHERE e.number = ANY (v_ordered[1:p_limit]) AND e.state = 'active'
              AND e.blocked_until <= p_now
            FOR NO KEY UPDATE SKIP LOCKED);
    END IF;
    WITH picked AS (
        SELECT due.id, due.due_at, due.bytes, p.place
        FROM unnest(v_endpoints, v_limits, v_dues, v_ids) WITH ORDINALITY
             AS p(endpoint, most, due_at, id, place)
        CROSS JOIN LATERAL (
            SELECT w.id, w.due_at, w.bytes FROM pending_deliveries w
            WHERE w.endpoint = p.endpoint AND (w.due_at, w.id) <= (p.due_at, p.id)
              AND (p.id = 9223372036854775807 OR (
                  w.id = p.id AND p.endpoint = ANY (v_ordered) AND NOT EXISTS (
                      SELECT 1 FROM pending_deliveries f
                      WHERE f.endpoint = p.endpoint AND (f.due_at, f.id) < (p.due_at, p.id))))
              AND (w.leased_until IS NULL OR w.leased_until <= v_clock OR w.token = p_token)
            ORDER BY w.due_at, w.id LIMIT p.most
            FOR UPDATE SKIP LOCKED
        ) due
        LIMIT p_limit
    ), summed AS (
        SELECT picked.*, row_number() OVER sorted AS turn,
               sum(picked.bytes) OVER sorted - picked.bytes AS bytes_before
        FROM picked WINDOW sorted AS (ORDER BY place, due_at, id)
    )
    SELECT array_agg(s.id ORDER BY s.turn), array_agg(s.place ORDER BY s.turn), count(*),
           sum(s.bytes)
    INTO v_claimed, v_places, v_count, v_bytes
    FROM summed s WHERE s.bytes_before < p_bytes;
    RETURN QUERY
    WITH leased AS (
        UPDATE pending_deliveries w SET leased_until = v_clock + p_lease, token = p_token,
            due_at = CASE WHEN v_ids[c.place] <> 9223372036854775807 THEN c_front
                          ELSE w.due_at END
        FROM unnest(v_claimed, v_places) WITH ORDINALITY AS c(id, place, turn)
        WHERE w.id = c.id
        RETURNING w.*, c.turn
    )
    SELECT l.id, l.endpoint, e.version, l.queued_at, l.attempts, l.attempts_before_replay,
           v.id, v.tenant, v.type, v.body, v.trace, e.failing_since IS NOT NULL
    FROM leased l
    JOIN endpoints e ON e.number = l.endpoint
    JOIN events v ON v.number = event_of(l.id) AND v.accepted_at = l.event_at
    ORDER BY l.turn;
    IF v_count < p_limit AND coalesce(v_bytes, 0) < p_bytes THEN
        RETURN QUERY
        SELECT NULL::bigint, NULL::bigint, 1::bigint, NULL::timestamptz, NULL::integer,
               NULL::integer, NULL, NULL, NULL, NULL, NULL, NULL::boolean;
        RETURN QUERY
        SELECT NULL::bigint, d.endpoint, NULL::bigint, d.due_at, NULL::integer, NULL::integer,
               NULL, d.tenant, NULL, NULL, NULL, NULL::boolean
        FROM dues(p_now, p_endpoints, p_worker, p_workers) d;
    END IF;
    RETURN QUERY
    SELECT NULL::bigint, u.endpoint, 0::bigint, NULL::timestamptz, NULL::integer, NULL::integer,
           NULL, NULL, NULL, NULL, NULL, NULL::boolean
    FROM unnest(v_unsorted) AS u(endpoint);
END $$;

REVOKE EXECUTE ON FUNCTION webhooks.publish_all FROM PUBLIC;
