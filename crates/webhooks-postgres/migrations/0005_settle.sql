-- Records the outcomes of claimed deliveries. They are given in the order of the deliveries' ids,
-- and each claim at most once. `p_places` is their order in time. `p_figures` are the kinds of
-- figures for which each counts, joined by spaces, or NULL.
--
-- Returns one row for each endpoint: the places of the outcomes that were recorded, because their
-- claims held, the endpoint's failures before all of them, and whether it is ordered. A claim holds
-- until the delivery is settled, released, claimed again or cancelled, or its endpoint is closed.
-- The end of its lease alone does not end a claim, but lets another worker claim the delivery.
CREATE FUNCTION webhooks.settle(
    p_now timestamptz, p_places integer[], p_ids bigint[], p_tokens bigint[], p_outcomes text[],
    p_dues timestamptz[], p_started timestamptz[], p_durations bigint[], p_codes integer[],
    p_classes text[], p_errors text[], p_headers text[], p_responses bytea[], p_worker bigint,
    p_figures text[]
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
    v_figures   text[];
BEGIN
    -- Rows are locked in the order of their ids, and endpoints after them in the order of their
    -- numbers, so that settlements never wait for each other in a circle. The DELETE alone does so
    -- by itself; with the UPDATE beside it, the rows of both must be locked before.
    IF p_outcomes && ARRAY['retrying', 'released'] THEN
        PERFORM 1 FROM pending_deliveries w WHERE w.id = ANY (p_ids) ORDER BY w.id FOR UPDATE;
    END IF;
    WITH given AS MATERIALIZED (
        SELECT * FROM unnest(p_places, p_ids, p_tokens, p_outcomes, p_dues, p_started, p_durations,
                             p_codes, p_classes, p_errors, p_headers, p_responses, p_figures)
        AS g(place, id, token, outcome, due_at, started_at, duration_us, code, class, error,
             headers, response, figures)
    ), gone AS (
        DELETE FROM pending_deliveries w USING given g, endpoints e
        WHERE g.outcome IN ('delivered', 'failed', 'expired')
          AND w.id = g.id AND w.token = g.token AND e.number = w.endpoint AND e.is_open
        RETURNING w.id, w.event_at, w.endpoint, w.queued_at, w.created_at,
                  w.attempts_before_replay, e.is_ordered, g.figures,
                  w.attempts + (g.started_at IS NOT NULL)::integer AS attempts, g.place, g.outcome,
                  g.started_at, g.duration_us, g.code, g.class, g.error, g.headers, g.response,
                  e.tenant
    ), ended AS (
        INSERT INTO ended_deliveries (id, event_at, endpoint, status, queued_at, created_at,
                           ended_at, attempts, attempts_before_replay, cancelled, started_at,
                           duration_us, status_code, error_class, error, response_headers, response,
                           tenant)
        SELECT id, event_at, endpoint,
               CASE outcome WHEN 'expired' THEN 'cancelled' ELSE outcome END, queued_at, created_at,
               p_now, attempts, attempts_before_replay,
               CASE outcome WHEN 'expired' THEN outcome END, started_at, duration_us, code, class,
               error, headers, response, tenant
        FROM gone
    ), back AS (
        UPDATE pending_deliveries w SET leased_until = NULL, token = NULL,
            attempts = w.attempts + (g.started_at IS NOT NULL)::integer,
            due_at = CASE WHEN e.is_ordered THEN 'epoch' WHEN g.outcome = 'retrying' THEN g.due_at
                          ELSE w.due_at END,
            is_scheduled = CASE WHEN g.outcome = 'released' THEN w.is_scheduled END
        FROM given g, endpoints e
        WHERE g.outcome IN ('retrying', 'released')
          AND w.id = g.id AND w.token = g.token AND e.number = w.endpoint AND e.is_open
        RETURNING w.id, w.event_at, w.endpoint, w.attempts, e.is_ordered, g.figures, g.place,
                  g.outcome, g.due_at, g.started_at, g.duration_us, g.code, g.class, g.error,
                  g.headers, g.response, e.tenant
    ), tried AS (
        INSERT INTO earlier_attempts (delivery, number, event_at, started_at, duration_us,
                             status_code, error_class, error, response_headers, response, tenant)
        SELECT id, attempts, event_at, started_at, duration_us, code, class, error, headers,
               response, tenant
        FROM back WHERE started_at IS NOT NULL
    )
    SELECT array_agg(h.place), array_agg(h.outcome), array_agg(h.due_at), array_agg(h.endpoint),
           array_agg(h.is_ordered), array_agg(h.figures)
    INTO v_places, v_outcomes, v_dues, v_endpoints, v_ordered, v_figures
    FROM (
        SELECT place, outcome, NULL::timestamptz AS due_at, endpoint, is_ordered, figures FROM gone
        UNION ALL SELECT place, outcome, due_at, endpoint, is_ordered, figures FROM back
    ) h;
    -- A retry notifies nobody: this worker knows its due time, and the others learn of it when they
    -- poll.
    IF 'released' = ANY (p_outcomes) THEN
        PERFORM notify_others(p_worker, ARRAY(
            SELECT DISTINCT h.endpoint FROM unnest(v_endpoints, v_outcomes) AS h(endpoint, outcome)
            WHERE h.outcome = 'released'));
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
        PERFORM add_figures(v_endpoints, v_figures, p_now, p_worker);
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
    PERFORM add_figures(v_endpoints, v_figures, p_now, p_worker);
END $$;

-- Counts cancellations of these endpoints' deliveries, in a transaction that is no settlement.
CREATE FUNCTION webhooks.count_cancelled(p_endpoints bigint[], p_now timestamptz) RETURNS void
LANGUAGE sql SET search_path = webhooks, pg_temp AS $$
    SELECT add_figures(
        p_endpoints, array_fill('cancelled'::text, ARRAY[coalesce(cardinality(p_endpoints), 0)]),
        p_now, own_writer())
$$;

-- Cancels some of the deliveries that are pending for a closed endpoint, as of the time when it was
-- closed; returns how many. Rows that another transaction has locked are left for the next time. With
-- `p_waits`, it waits for their locks instead, in the order of their ids.
CREATE FUNCTION webhooks.cancel_closed(
    p_endpoint bigint, p_limit integer, p_now timestamptz, p_waits boolean DEFAULT false
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
    INSERT INTO ended_deliveries (id, event_at, endpoint, status, queued_at, created_at, ended_at,
                                  attempts, attempts_before_replay, cancelled)
    SELECT g.id, g.event_at, g.endpoint, 'cancelled', g.queued_at, g.created_at, e.state_since,
           g.attempts, g.attempts_before_replay, e.state
    FROM gone g JOIN endpoints e ON e.number = g.endpoint;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count > 0 THEN
        PERFORM add_figures(ARRAY[p_endpoint], ARRAY['cancelled'], p_now, own_writer(),
                            ARRAY[v_count]::bigint[]);
    END IF;
    RETURN v_count;
END $$;

-- Cancels those of these deliveries that are pending for closed endpoints.
CREATE FUNCTION webhooks.cancel_if_closed(p_ids bigint[], p_now timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = webhooks, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_ids       bigint[];
    v_endpoints bigint[];
BEGIN
    v_ids := ARRAY(
        SELECT w.id FROM pending_deliveries w JOIN endpoints e ON e.number = w.endpoint
        WHERE w.id = ANY (p_ids) AND NOT e.is_open ORDER BY w.id FOR UPDATE OF w);
    IF v_ids = '{}' THEN
        RETURN;
    END IF;
    WITH gone AS (
        DELETE FROM pending_deliveries w USING endpoints e
        WHERE w.id = ANY (v_ids) AND e.number = w.endpoint AND NOT e.is_open
        RETURNING w.*, e.state, e.state_since
    ), ended AS (
        INSERT INTO ended_deliveries (id, event_at, endpoint, status, queued_at, created_at,
                                      ended_at, attempts, attempts_before_replay, cancelled)
        SELECT id, event_at, endpoint, 'cancelled', queued_at, created_at, state_since, attempts,
               attempts_before_replay, state
        FROM gone
    )
    SELECT array_agg(endpoint) INTO v_endpoints FROM gone;
    PERFORM count_cancelled(v_endpoints, p_now);
END $$;

-- Cancels those of these deliveries that are pending for open endpoints, and ends the claims on
-- them; returns their ids.
--
-- An ordered endpoint is blocked until the retry of its first delivery. If that one is cancelled,
-- the block ends, unless the first that remains waits for a retry as well. The row of the endpoint
-- is changed in any case: a settlement may have blocked it meanwhile, and workers that have
-- preclaimed deliveries of the endpoint see by `cancels` that they must check their claims.
CREATE FUNCTION webhooks.cancel(p_ids bigint[], p_reason text, p_now timestamptz)
RETURNS bigint[]
LANGUAGE plpgsql
SET search_path = webhooks, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_ids       bigint[];
    v_endpoints bigint[];
    v_retrying  bigint[];
BEGIN
    v_ids := ARRAY(
        SELECT w.id FROM pending_deliveries w JOIN endpoints e ON e.number = w.endpoint
        WHERE w.id = ANY (p_ids) AND e.is_open ORDER BY w.id FOR UPDATE OF w);
    IF v_ids = '{}' THEN
        RETURN v_ids;
    END IF;
    PERFORM 1 FROM endpoints e
    WHERE e.number IN (SELECT w.endpoint FROM pending_deliveries w WHERE w.id = ANY (v_ids))
    ORDER BY e.number FOR NO KEY UPDATE;
    WITH gone AS (
        DELETE FROM pending_deliveries w USING endpoints e
        WHERE w.id = ANY (v_ids) AND e.number = w.endpoint AND e.is_open RETURNING w.*
    ), ended AS (
        INSERT INTO ended_deliveries (id, event_at, endpoint, status, queued_at, created_at,
                                      ended_at, attempts, attempts_before_replay, cancelled)
        SELECT id, event_at, endpoint, 'cancelled', queued_at, created_at, p_now, attempts,
               attempts_before_replay, p_reason
        FROM gone
    )
    SELECT array_agg(id), array_agg(endpoint),
           array_agg(endpoint) FILTER (WHERE attempts > attempts_before_replay)
    INTO v_ids, v_endpoints, v_retrying FROM gone;
    UPDATE endpoints e SET cancels = e.cancels + 1,
        blocked_until = CASE
            WHEN e.is_ordered AND e.number = ANY (v_retrying) AND NOT coalesce((
                SELECT w.attempts > w.attempts_before_replay FROM pending_deliveries w
                WHERE w.endpoint = e.number ORDER BY w.due_at, w.id LIMIT 1), false)
            THEN 'epoch' ELSE e.blocked_until END
    WHERE e.number = ANY (v_endpoints);
    PERFORM count_cancelled(v_endpoints, p_now);
    RETURN coalesce(v_ids, '{}');
END $$;

-- Deletes the content of events of a tenant, unless it is deleted: their bodies, and the responses
-- to their attempts. Deliveries that are pending are cancelled. Returns how many events it were.
CREATE FUNCTION webhooks.expunge(p_tenant text, p_numbers bigint[], p_now timestamptz)
RETURNS integer
LANGUAGE plpgsql SET search_path = webhooks, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_numbers bigint[];
    v_ats     timestamptz[];
BEGIN
    -- No replay makes a delivery of the events pending from here on.
    PERFORM pg_advisory_xact_lock(7305003, hashtext(p_tenant));
    SELECT array_agg(v.number), array_agg(v.accepted_at) INTO v_numbers, v_ats
    FROM events v
    WHERE v.number = ANY (p_numbers) AND v.tenant = p_tenant AND v.expunged_at IS NULL;
    IF v_numbers IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM cancel_if_closed(ids, p_now), cancel(ids, 'expunged', p_now)
    FROM (SELECT array_agg(w.id) AS ids FROM unnest(v_numbers) AS n(number)
          JOIN pending_deliveries w ON is_of(w.id, n.number)) pending
    WHERE ids IS NOT NULL;
    UPDATE earlier_attempts a SET response = NULL, response_headers = NULL
    FROM unnest(v_numbers, v_ats) AS n(number, at)
    WHERE is_of(a.delivery, n.number) AND a.event_at = n.at
      AND (a.response IS NOT NULL OR a.response_headers IS NOT NULL);
    UPDATE ended_deliveries d SET response = NULL, response_headers = NULL
    FROM unnest(v_numbers, v_ats) AS n(number, at)
    WHERE is_of(d.id, n.number) AND d.event_at = n.at
      AND (d.response IS NOT NULL OR d.response_headers IS NOT NULL);
    UPDATE events v SET body = '', expunged_at = p_now
    FROM unnest(v_numbers, v_ats) AS n(number, at)
    WHERE v.number = n.number AND v.accepted_at = n.at;
    RETURN cardinality(v_numbers);
END $$;
