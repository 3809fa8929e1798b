-- Keeps what became of claimed deliveries. Returns a row for each whose claim held, by its place from
-- 1: the endpoint, since when that had been failing, and whether it is ordered. A claim holds as long
-- as nobody else has taken the delivery and the endpoint is there.
CREATE FUNCTION webhooks.settle(
    p_now timestamptz, p_ids bigint[], p_tokens bigint[], p_outcomes text[], p_dues timestamptz[],
    p_tried boolean[], p_started timestamptz[], p_durations bigint[], p_codes integer[],
    p_classes text[], p_errors text[], p_headers text[], p_responses bytea[], p_worker bigint
) RETURNS TABLE (place bigint, endpoint bigint, failing_since timestamptz, is_ordered boolean)
LANGUAGE plpgsql
SET search_path = webhooks, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_places    bigint[];
    v_endpoints bigint[];
    v_ordered   boolean[];
    v_changed   record;
    v_since     timestamptz;
    v_blocked   timestamptz;
    v_failing   timestamptz;
BEGIN
    -- Rows are locked in the order of their ids, and endpoints after them in the order of their
    -- numbers, so that nobody waits in a circle. Of two settlements by one claim the first counts.
    WITH given AS (
        SELECT DISTINCT ON (g.id, g.token) g.*
        FROM unnest(p_ids, p_tokens, p_outcomes, p_dues, p_tried, p_started, p_durations, p_codes,
                    p_classes, p_errors, p_headers, p_responses) WITH ORDINALITY
             AS g(id, token, outcome, due_at, tried, started_at, duration_us, code, class, error,
                  headers, response, place)
        ORDER BY g.id, g.token, g.place
    ), held AS MATERIALIZED (
        SELECT w.id, w.event, w.event_at, w.endpoint, w.since, w.earlier_attempts, e.is_ordered,
               w.attempts + g.tried::integer AS attempts, w.due_at AS old_due_at,
               g.outcome, g.due_at, g.tried, g.started_at, g.duration_us, g.code, g.class, g.error,
               g.headers, g.response, g.place
        FROM given g
        JOIN waiting w ON w.id = g.id AND w.token = g.token
        JOIN endpoints e ON e.number = w.endpoint AND e.active
        FOR UPDATE OF w
    ), gone AS (
        DELETE FROM waiting w USING held h
        WHERE w.id = h.id AND h.outcome IN ('delivered', 'failed', 'cancelled')
    ), kept AS (
        INSERT INTO ended (id, event, event_at, endpoint, status, since, attempts, earlier_attempts)
        SELECT id, event, event_at, endpoint, outcome, since, attempts, earlier_attempts
        FROM held WHERE outcome IN ('delivered', 'failed', 'cancelled')
    ), back AS (
        UPDATE waiting w SET leased_until = NULL, token = NULL, attempts = h.attempts,
            due_at = CASE WHEN h.outcome = 'retrying' AND NOT h.is_ordered THEN h.due_at
                          ELSE h.old_due_at END
        FROM held h WHERE w.id = h.id AND h.outcome IN ('retrying', 'released')
    ), tried AS (
        INSERT INTO attempts (delivery, number, event_at, started_at, duration_us, status_code,
                              error_class, error, response_headers, response)
        SELECT id, attempts, event_at, started_at, duration_us, code, class, error, headers,
               response
        FROM held WHERE tried
    )
    SELECT array_agg(h.place), array_agg(h.endpoint), array_agg(h.is_ordered)
    INTO v_places, v_endpoints, v_ordered FROM held h;
    IF 'released' = ANY (p_outcomes) THEN
        PERFORM notify_others(p_worker);
    END IF;
    IF NOT p_outcomes && ARRAY['retrying', 'failed'] AND NOT EXISTS (
        SELECT 1 FROM endpoints e
        WHERE e.number = ANY (v_endpoints) AND e.failing_since IS NOT NULL
    ) THEN
        RETURN QUERY SELECT h.place, h.endpoint, NULL::timestamptz, h.is_ordered
        FROM unnest(v_places, v_endpoints, v_ordered) AS h(place, endpoint, is_ordered);
        RETURN;
    END IF;
    FOR v_changed IN
        SELECT h.endpoint, bool_or(p_outcomes[h.place] = 'delivered') AS has_success,
               (array_agg(p_outcomes[h.place] ORDER BY h.place DESC)
                   FILTER (WHERE p_outcomes[h.place] IN ('delivered', 'failed', 'retrying')))[1] AS last,
               max(p_dues[h.place]) FILTER (WHERE h.is_ordered) AS blocked_until
        FROM unnest(v_places, v_endpoints, v_ordered) AS h(place, endpoint, is_ordered)
        GROUP BY h.endpoint ORDER BY h.endpoint
    LOOP
        SELECT e.failing_since, e.blocked_until INTO v_since, v_blocked FROM endpoints e
        WHERE e.number = v_changed.endpoint FOR NO KEY UPDATE;
        v_failing := CASE
            WHEN v_changed.last = 'delivered' THEN NULL
            WHEN v_changed.last IS NULL THEN v_since
            WHEN v_changed.has_success OR v_since IS NULL THEN p_now
            ELSE v_since END;
        v_changed.blocked_until := coalesce(v_changed.blocked_until, v_blocked);
        -- Most often an endpoint that fails goes on failing, and its row stays as it is.
        IF (v_failing, v_changed.blocked_until) IS DISTINCT FROM (v_since, v_blocked) THEN
            UPDATE endpoints e SET failing_since = v_failing, blocked_until = v_changed.blocked_until
            WHERE e.number = v_changed.endpoint;
        END IF;
        RETURN QUERY SELECT h.place, h.endpoint, v_since, h.is_ordered
        FROM unnest(v_places, v_endpoints, v_ordered) AS h(place, endpoint, is_ordered)
        WHERE h.endpoint = v_changed.endpoint;
    END LOOP;
END $$;

-- Cancels some of what waits for an endpoint that is gone; returns how many. What somebody holds
-- just now is left for the next time.
CREATE FUNCTION webhooks.drain(p_endpoint bigint, p_limit integer) RETURNS integer
LANGUAGE plpgsql SET search_path = webhooks, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_count integer;
BEGIN
    WITH gone AS (
        DELETE FROM waiting WHERE id IN (
            SELECT id FROM waiting WHERE endpoint = p_endpoint
            ORDER BY due_at, id LIMIT p_limit FOR UPDATE SKIP LOCKED)
        RETURNING *
    )
    INSERT INTO ended (id, event, event_at, endpoint, status, since, attempts, earlier_attempts)
    SELECT id, event, event_at, endpoint, 'cancelled', since, attempts, earlier_attempts FROM gone;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;
