-- Whether a worker may serve an endpoint: it is one of the first `p_max_workers` in the endpoint's
-- order of workers. It must match `rank` in share.rs, which computes the worker's share: if the two
-- differ, a worker claims deliveries that it has no share for. Both need ids of workers from 2^31
-- on, since a worker's factor comes from the bits above the 31st.
CREATE FUNCTION webhooks.may_serve(
    p_endpoint bigint, p_max_workers integer, p_worker bigint, p_workers bigint[]
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (
        SELECT count(*) FROM unnest(p_workers) AS w(id)
        WHERE (((p_endpoint % 2147483647) * (1 + (w.id >> 31) % 2147483646) + w.id % 2147483647)
                   % 2147483647, w.id)
            < (((p_endpoint % 2147483647) * (1 + (p_worker >> 31) % 2147483646)
                   + p_worker % 2147483647) % 2147483647, p_worker)
    ) < p_max_workers
$$;

-- The endpoints with pending deliveries. One index lookup per endpoint finds the next one, however
-- many deliveries are pending.
CREATE FUNCTION webhooks.pending_endpoints() RETURNS bigint[]
LANGUAGE plpgsql STABLE
SET search_path = webhooks, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
SET jit = off AS $$
BEGIN
    RETURN ARRAY(
        WITH RECURSIVE walk (endpoint) AS (
            (SELECT endpoint FROM pending_deliveries ORDER BY endpoint LIMIT 1)
            UNION ALL
            SELECT (SELECT w.endpoint FROM pending_deliveries w WHERE w.endpoint > walk.endpoint
                    ORDER BY w.endpoint LIMIT 1)
            FROM walk WHERE walk.endpoint IS NOT NULL
        )
        SELECT endpoint FROM walk WHERE endpoint IS NOT NULL);
END $$;

-- Those of these endpoints that are closed, or active and this worker's to serve, each with its first
-- pending delivery, and with its place in the array.
--
-- An ordered endpoint is unsorted if some of its deliveries have a due time, because they were
-- published, or tried again, when it was not ordered. Scheduled ones have a due time until they are
-- claimed. No more than the first 256 due times are looked at, so that this stays short however many
-- deliveries are scheduled; an unsorted one behind these is found later, or claimed when it is due.
--
-- The function has no settings of its own: those of the functions that call it hold in it.
CREATE FUNCTION webhooks.heads(p_endpoints bigint[], p_worker bigint, p_workers bigint[])
RETURNS TABLE (place integer, number bigint, tenant text, is_open boolean, is_ordered boolean,
               max_claim integer, blocked_until timestamptz, first_due timestamptz,
               first_id bigint, is_unsorted boolean)
LANGUAGE plpgsql STABLE ROWS 10 AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT g.place::integer, e.number, e.tenant, e.is_open, e.is_ordered, e.max_claim,
           e.blocked_until, head.due_at, head.id,
           e.is_ordered AND e.is_open AND EXISTS (
               SELECT 1 FROM (
                   SELECT w.is_scheduled, w.leased_until FROM pending_deliveries w
                   WHERE w.endpoint = e.number AND w.due_at > 'epoch'
                   ORDER BY w.due_at, w.id LIMIT 256
               ) w WHERE w.is_scheduled IS NULL OR w.leased_until IS NOT NULL)
    FROM unnest(p_endpoints) WITH ORDINALITY AS g(endpoint, place)
    JOIN endpoints e ON e.number = g.endpoint
    CROSS JOIN LATERAL (
        SELECT w.due_at, w.id FROM pending_deliveries w WHERE w.endpoint = g.endpoint
        ORDER BY w.due_at, w.id LIMIT 1
    ) head
    WHERE NOT e.is_open OR (e.state = 'active' AND (
        cardinality(p_workers) <= e.max_workers
        OR may_serve(e.number, e.max_workers, p_worker, p_workers)));
END $$;

-- Claims deliveries of these endpoints that are due, of one endpoint after another: at most as many as
-- its entry in `p_limits`, `p_limit` in all, and until their bodies have `p_bytes` together. The caller
-- knows which endpoints have something due, so a claim costs as much as it claims, however many
-- endpoints have something pending. Returns rows of four kinds:
--   id is given            a claimed delivery, with all that is needed to send it
--   id is NULL, and
--     version is NULL      an endpoint that can be claimed from, and the time (queued_at) from which;
--                          or, if that is NULL, a closed one, whose deliveries are to be cancelled.
--                          Only if everything that is due was claimed
--     version is 0         an ordered endpoint, some deliveries of which were sorted; the worker
--                          should claim again at once
--     version is 1         nothing more is due for these endpoints
--
-- A worker that did not get the answer claims again with the same token, and gets the same
-- deliveries.
--
-- A claim does not wait for the disk: if a crash of the server loses it, its deliveries are due
-- again.
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

-- The time from which there may be something to claim for each of these endpoints, on the caller's
-- clock: when its first delivery is due, or when the first lease ends. Of an ordered endpoint, all
-- leases must have ended. It is NULL for a closed endpoint. Endpoints without pending deliveries, and
-- those that the worker does not serve, are left out.
CREATE FUNCTION webhooks.dues(
    p_now timestamptz, p_endpoints bigint[], p_worker bigint, p_workers bigint[]
) RETURNS TABLE (endpoint bigint, tenant text, due_at timestamptz)
LANGUAGE plpgsql STABLE ROWS 10
SET search_path = webhooks, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT head.number, head.tenant, CASE
        WHEN NOT head.is_open THEN NULL
        WHEN head.is_unsorted THEN 'epoch'
        WHEN head.is_ordered THEN greatest(leases.latest, head.first_due, head.blocked_until)
        ELSE least(leases.earliest, (
            SELECT w.due_at FROM pending_deliveries w
            WHERE w.endpoint = head.number AND w.leased_until IS NULL
            ORDER BY w.due_at, w.id LIMIT 1)) END
    FROM heads(p_endpoints, p_worker, p_workers) head CROSS JOIN LATERAL (
        SELECT min(front.leased_until) + (p_now - lease_clock(p_now)) AS earliest,
               max(front.leased_until) + (p_now - lease_clock(p_now)) AS latest
        FROM (SELECT w.leased_until FROM pending_deliveries w WHERE w.endpoint = head.number
              ORDER BY w.due_at, w.id LIMIT 64) front
    ) leases;
END $$;
