-- Records the heartbeat of a worker, and returns the members: the workers that share the work. A
-- worker becomes a member some heartbeats after it joined; the first of all becomes one at once.
-- Each worker counts itself three heartbeats after it joined, and the others count it after one, so
-- that they have given up its share before it takes that. A worker without a heartbeat for its
-- `p_expiry` is removed.
CREATE FUNCTION webhooks.heartbeat(p_worker bigint, p_every interval, p_expiry interval)
RETURNS bigint[] LANGUAGE plpgsql SET search_path = webhooks, pg_temp AS $$
DECLARE
    v_now timestamptz;
BEGIN
    -- A worker that joins must see all that joined before: of several that start together, exactly
    -- one is the first. So they join one after another.
    IF NOT EXISTS (SELECT 1 FROM workers WHERE id = p_worker) THEN
        PERFORM pg_advisory_xact_lock(7305000, 4);
    END IF;
    v_now := clock_timestamp();
    DELETE FROM workers WHERE id IN (
        SELECT id FROM workers WHERE expires_at < v_now AND id <> p_worker
        FOR UPDATE SKIP LOCKED);
    INSERT INTO workers (id, joined_at, seen_at, expires_at)
    VALUES (p_worker, v_now, v_now, v_now + p_expiry)
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, expires_at = excluded.expires_at;
    RETURN ARRAY(
        SELECT id FROM workers
        WHERE joined_at <= v_now - CASE WHEN id = p_worker THEN 3 ELSE 1 END * p_every
           OR (joined_at, id) = (SELECT w.joined_at, w.id FROM workers w
                                 ORDER BY w.joined_at, w.id LIMIT 1)
        ORDER BY id);
END $$;

-- The last reports of workers about themselves, for people and other processes to read.
CREATE TABLE webhooks.worker_reports (
    worker  bigint NOT NULL,                    -- workers.id: one for each process
    number  bigint NOT NULL,                    -- of the worker in its process
    report  text NOT NULL,                      -- JSON
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (worker, number)
) WITH (fillfactor = 50);

-- The endpoints that somebody wants to be tried now, for the workers of other processes. A notification says
-- that there are new ones; a worker that does not hear it finds them at its next heartbeat.
CREATE TABLE webhooks.probes (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    worker    bigint NOT NULL,                  -- workers.id of the process that asks
    endpoints bigint[] NOT NULL,
    asked_at  timestamptz NOT NULL
);

-- Has the other live workers probe these endpoints when the transaction is committed. `note` of tasks.rs reads
-- the notification.
CREATE FUNCTION webhooks.probe_elsewhere(p_worker bigint, p_endpoints bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = webhooks, pg_temp AS $$
BEGIN
    IF cardinality(p_endpoints) > 0
        AND EXISTS (SELECT 1 FROM workers WHERE id IS DISTINCT FROM p_worker) THEN
        INSERT INTO probes (worker, endpoints, asked_at)
        VALUES (p_worker, p_endpoints, clock_timestamp());
        NOTIFY webhooks, 'probe';
    END IF;
END $$;

-- Returns the last wishes of other processes, and removes those that all workers have read: each reads them at
-- every heartbeat.
CREATE FUNCTION webhooks.probes_asked(p_worker bigint)
RETURNS TABLE (id bigint, endpoints bigint[])
LANGUAGE plpgsql SET search_path = webhooks, pg_temp AS $$
#variable_conflict use_column
BEGIN
    DELETE FROM probes WHERE id IN (
        SELECT id FROM probes WHERE asked_at < clock_timestamp() - interval '2 minutes'
        FOR UPDATE SKIP LOCKED);
    RETURN QUERY SELECT p.id, p.endpoints FROM probes p WHERE p.worker <> p_worker ORDER BY p.id;
END $$;
