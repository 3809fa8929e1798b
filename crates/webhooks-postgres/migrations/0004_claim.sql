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

-- The endpoints with pending deliveries that are closed, or that are active, not busy and this
-- worker's to serve, each with its first delivery. It is found with one index lookup per endpoint,
-- however many deliveries are pending.
--
-- An ordered endpoint is unsorted if some of its deliveries have a due time, because they were
-- published, or tried again, when it was not ordered. Scheduled ones have a due time until they are
-- claimed. A walk looks at no more than the first 256 due times, so that it stays short however
-- many deliveries are scheduled; an unsorted one behind these is found later, or claimed when it is
-- due.
--
-- The function has no settings of its own: those of the functions that call it hold in it.
CREATE FUNCTION webhooks.walk(p_busy bigint[], p_worker bigint, p_workers bigint[])
RETURNS TABLE (number bigint, tenant text, is_open boolean, is_ordered boolean,
               blocked_until timestamptz, first_due timestamptz, first_id bigint,
               is_unsorted boolean)
LANGUAGE plpgsql STABLE ROWS 10 AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH RECURSIVE walk AS (
        (SELECT endpoint, due_at, id FROM pending_deliveries ORDER BY endpoint, due_at, id LIMIT 1)
        UNION ALL
        SELECT next.* FROM walk CROSS JOIN LATERAL (
            SELECT endpoint, due_at, id FROM pending_deliveries WHERE endpoint > walk.endpoint
            ORDER BY endpoint, due_at, id LIMIT 1
        ) next
    )
    SELECT e.number, e.tenant, e.is_open, e.is_ordered, e.blocked_until, walk.due_at, walk.id,
           e.is_ordered AND e.is_open AND EXISTS (
               SELECT 1 FROM (
                   SELECT w.is_scheduled, w.leased_until FROM pending_deliveries w
                   WHERE w.endpoint = e.number AND w.due_at > 'epoch'
                   ORDER BY w.due_at, w.id LIMIT 256
               ) w WHERE w.is_scheduled IS NULL OR w.leased_until IS NOT NULL)
    FROM walk JOIN endpoints e ON e.number = walk.endpoint
    WHERE NOT e.is_open OR (e.state = 'active' AND e.number NOT IN (SELECT unnest(p_busy)) AND (
        cardinality(p_workers) <= e.max_workers
        OR may_serve(e.number, e.max_workers, p_worker, p_workers)));
END $$;

-- Claims the deliveries that are due, at most `p_per_endpoint` for each endpoint. Tenants take
-- turns, those after `p_served` first. Returns rows of four kinds:
--   id is given            a claimed delivery, with all that is needed to send it
--   id is NULL, and
--     queued_at is given   the next due time of an endpoint; only if all that is due was claimed
--     version is 0         an ordered endpoint, some deliveries of which were sorted; the worker
--                          should claim again at once
--     version is NULL      a closed endpoint with pending deliveries, which are to be cancelled
--
-- A worker that did not get the answer claims again with the same token, and gets the same
-- deliveries.
--
-- A claim does not wait for the disk: if a crash of the server loses it, its deliveries are due
-- again.
CREATE FUNCTION webhooks.claim(
    p_now timestamptz, p_lease interval, p_token bigint, p_limit integer, p_per_endpoint integer,
    p_busy bigint[], p_served text, p_worker bigint, p_workers bigint[]
) RETURNS TABLE (
    id bigint, endpoint bigint, version bigint, queued_at timestamptz, attempts integer,
    attempts_before_replay integer, event_id text, tenant text, type text, body text,
    is_failing boolean)
LANGUAGE plpgsql
SET search_path = webhooks, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_endpoints    bigint[];
    v_dues         timestamptz[];
    v_ids          bigint[];
    v_closed       bigint[];
    v_unsorted     bigint[];
    v_ids_unsorted bigint[];
    v_ordered      bigint[];
    v_claimed      bigint;
    v_clock        timestamptz := lease_clock(p_now);
    -- The due time of an ordered endpoint's delivery while it is in flight: just before the epoch,
    -- which all its others have. So it comes first, however many older ones a replay, or a publish
    -- that commits later, puts before it; and one lookup tells that nothing else may be claimed.
    c_front        CONSTANT timestamptz := '1969-12-31 23:59:59.999999+00';
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    -- Of an ordered endpoint, only the first delivery is claimed, and none while one is in flight.
    SELECT array_agg(number ORDER BY round, turn, tenant) FILTER (WHERE is_claimable),
           array_agg(bound_due ORDER BY round, turn, tenant) FILTER (WHERE is_claimable),
           array_agg(bound_id ORDER BY round, turn, tenant) FILTER (WHERE is_claimable),
           array_agg(number) FILTER (WHERE NOT is_open),
           array_agg(number) FILTER (WHERE is_unsorted),
           array_agg(number ORDER BY round, turn, tenant) FILTER (WHERE is_claimable AND is_ordered)
    INTO v_endpoints, v_dues, v_ids, v_closed, v_unsorted, v_ordered
    FROM (
        SELECT number, tenant, is_open, is_ordered, is_unsorted,
               is_open AND NOT is_unsorted AS is_claimable,
               tenant <= p_served AS turn,
               CASE WHEN is_ordered THEN first_due ELSE p_now END AS bound_due,
               CASE WHEN is_ordered THEN first_id ELSE 9223372036854775807 END AS bound_id,
               row_number() OVER (PARTITION BY tenant ORDER BY first_due, number) AS round
        FROM walk(p_busy, p_worker, p_workers)
        WHERE NOT is_open OR is_unsorted OR (first_due <= p_now AND NOT (is_ordered AND (
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
    -- An ordered endpoint may go to another worker since the walk. So a claim for it locks its row,
    -- as settlements of retries do, and checks again: the endpoint must not be blocked, and its
    -- first delivery must be the same and not leased. A claim never waits for that lock, so that no
    -- transactions wait for each other in a circle.
    IF v_ordered IS NOT NULL THEN
        v_ordered := ARRAY(
            SELECT e.number FROM endpoints e
            WHERE e.number = ANY (v_ordered[1:p_limit]) AND e.state = 'active'
              AND e.blocked_until <= p_now
            FOR NO KEY UPDATE SKIP LOCKED);
    END IF;
    RETURN QUERY
    WITH picked AS (
        SELECT due.id, due.due_at, p.place, p.id <> 9223372036854775807 AS is_ordered
        FROM unnest(v_endpoints, v_dues, v_ids) WITH ORDINALITY AS p(endpoint, due_at, id, place)
        CROSS JOIN LATERAL (
            SELECT w.id, w.due_at FROM pending_deliveries w
            WHERE w.endpoint = p.endpoint AND (w.due_at, w.id) <= (p.due_at, p.id)
              AND (p.id = 9223372036854775807 OR (
                  w.id = p.id AND p.endpoint = ANY (v_ordered) AND NOT EXISTS (
                      SELECT 1 FROM pending_deliveries f
                      WHERE f.endpoint = p.endpoint AND (f.due_at, f.id) < (p.due_at, p.id))))
              AND (w.leased_until IS NULL OR w.leased_until <= v_clock OR w.token = p_token)
            ORDER BY w.due_at, w.id LIMIT p_per_endpoint
            FOR UPDATE SKIP LOCKED
        ) due
        LIMIT p_limit
    ), leased AS (
        UPDATE pending_deliveries w SET leased_until = v_clock + p_lease, token = p_token,
            due_at = CASE WHEN picked.is_ordered THEN c_front ELSE w.due_at END
        FROM picked WHERE w.id = picked.id
        RETURNING w.*, picked.place
    )
    SELECT l.id, l.endpoint, e.version, l.queued_at, l.attempts, l.attempts_before_replay,
           v.id, v.tenant, v.type, v.body, e.failing_since IS NOT NULL
    FROM leased l
    JOIN endpoints e ON e.number = l.endpoint
    JOIN events v ON v.number = event_of(l.id) AND v.accepted_at = l.event_at
    ORDER BY l.place, l.due_at, l.id;
    GET DIAGNOSTICS v_claimed = ROW_COUNT;
    IF v_claimed < p_limit THEN
        RETURN QUERY
        SELECT NULL::bigint, d.endpoint, NULL::bigint, d.due_at, NULL::integer, NULL::integer,
               NULL, NULL, NULL, NULL, NULL::boolean
        FROM dues(p_now, p_busy, p_worker, p_workers) d;
    END IF;
    RETURN QUERY
    SELECT NULL::bigint, c.endpoint, NULL::bigint, NULL::timestamptz, NULL::integer, NULL::integer,
           NULL, NULL, NULL, NULL, NULL::boolean
    FROM unnest(v_closed) AS c(endpoint);
    RETURN QUERY
    SELECT NULL::bigint, u.endpoint, 0::bigint, NULL::timestamptz, NULL::integer, NULL::integer,
           NULL, NULL, NULL, NULL, NULL::boolean
    FROM unnest(v_unsorted) AS u(endpoint);
END $$;

-- The time from which there may be something to claim for each endpoint, on the caller's clock:
-- when its first delivery is due, or when the first lease ends. Of an ordered endpoint, all leases
-- must have ended.
CREATE FUNCTION webhooks.dues(
    p_now timestamptz, p_busy bigint[], p_worker bigint, p_workers bigint[]
) RETURNS TABLE (endpoint bigint, due_at timestamptz)
LANGUAGE plpgsql STABLE ROWS 10
SET search_path = webhooks, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT walk.number, CASE
        WHEN walk.is_unsorted THEN 'epoch'
        WHEN walk.is_ordered THEN greatest(leases.latest, walk.first_due, walk.blocked_until)
        ELSE least(leases.earliest, (
            SELECT w.due_at FROM pending_deliveries w
            WHERE w.endpoint = walk.number AND w.leased_until IS NULL
            ORDER BY w.due_at, w.id LIMIT 1)) END
    FROM walk(p_busy, p_worker, p_workers) walk CROSS JOIN LATERAL (
        SELECT min(front.leased_until) + (p_now - lease_clock(p_now)) AS earliest,
               max(front.leased_until) + (p_now - lease_clock(p_now)) AS latest
        FROM (SELECT w.leased_until FROM pending_deliveries w WHERE w.endpoint = walk.number
              ORDER BY w.due_at, w.id LIMIT 64) front
    ) leases
    WHERE walk.is_open;
END $$;
