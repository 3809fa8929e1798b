-- Records the outcomes of claimed deliveries. They are given in the order of the deliveries' ids,
-- and each claim at most once. `p_places` is their order in time.
--
-- Returns one row for each endpoint: the places of the outcomes that were recorded, because their
-- claims held, the endpoint's failures before all of them, and whether it is ordered. A claim holds
-- until the delivery is settled, released, claimed again or cancelled, or its endpoint is closed.
-- The end of its lease alone does not end a claim, but lets another worker claim the delivery.
CREATE FUNCTION webhooks.settle(
    p_now timestamptz, p_places integer[], p_ids bigint[], p_tokens bigint[], p_outcomes text[],
    p_dues timestamptz[], p_started timestamptz[], p_durations bigint[], p_codes integer[],
    p_classes text[], p_errors text[], p_headers text[], p_responses bytea[], p_worker bigint
) RETURNS TABLE (endpoint bigint, is_ordered boolean, failing_since timestamptz,
    failed_at timestamptz, tried_for bigint, places integer[])
LANGUAGE plpgsql
SET search_path = webhooks, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_places    integer[];
    v_outcomes  text[];
    v_dues      timestamptz[];
    v_endpoints bigint[];
    v_ordered   boolean[];
    v_changed   record;
    v_before    record;
    v_after     record;
    v_pause     interval;
BEGIN
    -- Rows are locked in the order of their ids, and endpoints after them in the order of their
    -- numbers, so that settlements never wait for each other in a circle. The DELETE alone does so
    -- by itself; with the UPDATE beside it, the rows of both must be locked before.
    IF p_outcomes && ARRAY['retrying', 'released'] THEN
        PERFORM 1 FROM pending_deliveries w WHERE w.id = ANY (p_ids) ORDER BY w.id FOR UPDATE;
    END IF;
    WITH given AS MATERIALIZED (
        SELECT * FROM unnest(p_places, p_ids, p_tokens, p_outcomes, p_dues, p_started, p_durations,
                             p_codes, p_classes, p_errors, p_headers, p_responses)
        AS g(place, id, token, outcome, due_at, started_at, duration_us, code, class, error,
             headers, response)
    ), gone AS (
        DELETE FROM pending_deliveries w USING given g, endpoints e
        WHERE g.outcome IN ('delivered', 'failed', 'expired')
          AND w.id = g.id AND w.token = g.token AND e.number = w.endpoint AND e.is_open
        RETURNING w.id, w.event_at, w.endpoint, w.queued_at, w.attempts_before_replay, e.is_ordered,
                  w.attempts + (g.started_at IS NOT NULL)::integer AS attempts, g.place, g.outcome,
                  g.started_at, g.duration_us, g.code, g.class, g.error, g.headers, g.response
    ), ended AS (
        INSERT INTO ended_deliveries (id, event_at, endpoint, status, queued_at, attempts,
                           attempts_before_replay, cancelled, started_at, duration_us,
                           status_code, error_class, error, response_headers, response)
        SELECT id, event_at, endpoint,
               CASE outcome WHEN 'expired' THEN 'cancelled' ELSE outcome END, queued_at, attempts,
               attempts_before_replay, CASE outcome WHEN 'expired' THEN outcome END, started_at,
               duration_us, code, class, error, headers, response
        FROM gone
    ), back AS (
        UPDATE pending_deliveries w SET leased_until = NULL, token = NULL,
            attempts = w.attempts + (g.started_at IS NOT NULL)::integer,
            due_at = CASE WHEN e.is_ordered THEN 'epoch' WHEN g.outcome = 'retrying' THEN g.due_at
                          ELSE w.due_at END
        FROM given g, endpoints e
        WHERE g.outcome IN ('retrying', 'released')
          AND w.id = g.id AND w.token = g.token AND e.number = w.endpoint AND e.is_open
        RETURNING w.id, w.event_at, w.endpoint, w.attempts, e.is_ordered, g.place, g.outcome,
                  g.due_at, g.started_at, g.duration_us, g.code, g.class, g.error, g.headers,
                  g.response
    ), tried AS (
        INSERT INTO earlier_attempts (delivery, number, event_at, started_at, duration_us,
                             status_code, error_class, error, response_headers, response)
        SELECT id, attempts, event_at, started_at, duration_us, code, class, error, headers,
               response
        FROM back WHERE started_at IS NOT NULL
    )
    SELECT array_agg(h.place), array_agg(h.outcome), array_agg(h.due_at), array_agg(h.endpoint),
           array_agg(h.is_ordered)
    INTO v_places, v_outcomes, v_dues, v_endpoints, v_ordered
    FROM (
        SELECT place, outcome, NULL::timestamptz AS due_at, endpoint, is_ordered FROM gone
        UNION ALL SELECT place, outcome, due_at, endpoint, is_ordered FROM back
    ) h;
    -- A retry notifies nobody: this worker knows its due time, and the others learn of it when they
    -- poll.
    IF 'released' = ANY (p_outcomes) THEN
        PERFORM notify_others(p_worker);
    END IF;
    IF NOT p_outcomes && ARRAY['retrying', 'failed'] AND NOT EXISTS (
        SELECT 1 FROM endpoints e
        WHERE e.number = ANY (v_endpoints) AND e.failing_since IS NOT NULL
    ) THEN
        RETURN QUERY
        SELECT h.endpoint, bool_or(h.is_ordered), NULL::timestamptz, NULL::timestamptz,
               NULL::bigint, array_agg(h.place)
        FROM unnest(v_places, v_endpoints, v_ordered) AS h(place, endpoint, is_ordered)
        GROUP BY h.endpoint;
        RETURN;
    END IF;
    FOR v_changed IN
        SELECT h.endpoint, bool_or(h.is_ordered) AS is_ordered, array_agg(h.place) AS places,
               bool_or(h.outcome = 'delivered') AS has_success,
               (array_agg(h.outcome ORDER BY h.place DESC)
                   FILTER (WHERE h.outcome IN ('delivered', 'failed', 'retrying')))[1] AS last,
               max(h.due_at) FILTER (WHERE h.is_ordered) AS blocked_until
        FROM unnest(v_places, v_outcomes, v_dues, v_endpoints, v_ordered)
             AS h(place, outcome, due_at, endpoint, is_ordered)
        GROUP BY h.endpoint ORDER BY h.endpoint
    LOOP
        SELECT e.failing_since, e.failed_at, e.tried_for, e.blocked_until INTO v_before
        FROM endpoints e WHERE e.number = v_changed.endpoint FOR NO KEY UPDATE;
        v_after := v_before;
        v_pause := p_now - v_before.failed_at;
        -- It must match `Failing` of webhooks-dispatch, which has the same limits.
        IF v_changed.last = 'delivered' THEN
            v_after.failing_since := NULL;
            v_after.failed_at := NULL;
            v_after.tried_for := NULL;
        ELSIF v_changed.last IS NULL THEN
            NULL;
        ELSIF v_changed.has_success OR v_before.failing_since IS NULL THEN
            v_after.failing_since := p_now;
            v_after.failed_at := p_now;
            v_after.tried_for := 0;
        ELSIF v_pause >= interval '1 second' THEN
            v_after.failed_at := p_now;
            IF v_pause <= interval '30 hours' THEN
                v_after.tried_for := v_before.tried_for
                    + (extract(epoch FROM v_pause) * 1000000)::bigint;
            END IF;
        END IF;
        v_after.blocked_until := coalesce(v_changed.blocked_until, v_before.blocked_until);
        -- Most often the row need not change: an endpoint that fails goes on failing.
        IF v_after IS DISTINCT FROM v_before THEN
            UPDATE endpoints e SET failing_since = v_after.failing_since,
                failed_at = v_after.failed_at, tried_for = v_after.tried_for,
                blocked_until = v_after.blocked_until
            WHERE e.number = v_changed.endpoint;
        END IF;
        endpoint := v_changed.endpoint;
        is_ordered := v_changed.is_ordered;
        failing_since := v_before.failing_since;
        failed_at := v_before.failed_at;
        tried_for := v_before.tried_for;
        places := v_changed.places;
        RETURN NEXT;
    END LOOP;
END $$;

-- Cancels some of the deliveries that are pending for a closed endpoint; returns how many. Rows
-- that another transaction has locked are left for the next time. With `p_waits`, it waits for
-- their locks instead, in the order of their ids.
CREATE FUNCTION webhooks.cancel_closed(
    p_endpoint bigint, p_limit integer, p_waits boolean DEFAULT false
) RETURNS integer
LANGUAGE plpgsql SET search_path = webhooks, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_count integer;
BEGIN
    IF p_waits THEN
        PERFORM 1 FROM pending_deliveries w WHERE w.id = ANY (ARRAY(
            SELECT f.id FROM pending_deliveries f WHERE f.endpoint = p_endpoint
            ORDER BY f.due_at, f.id LIMIT p_limit))
        ORDER BY w.id FOR UPDATE;
    END IF;
    WITH gone AS (
        DELETE FROM pending_deliveries WHERE id IN (
            SELECT id FROM pending_deliveries WHERE endpoint = p_endpoint
            ORDER BY due_at, id LIMIT p_limit FOR UPDATE SKIP LOCKED)
        RETURNING *
    )
    INSERT INTO ended_deliveries (id, event_at, endpoint, status, queued_at, attempts,
                                  attempts_before_replay, cancelled)
    SELECT g.id, g.event_at, g.endpoint, 'cancelled', g.queued_at, g.attempts,
           g.attempts_before_replay, e.state
    FROM gone g JOIN endpoints e ON e.number = g.endpoint;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;
