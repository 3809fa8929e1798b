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
