-- Makes the partitions for a time, unless they exist. A table is made first and attached then, so
-- that reading and writing goes on meanwhile. Bounds are computed and written in UTC and ISO
-- format, not as the caller's session is set: so every day has 24 hours, and no abbreviation of a
-- time zone is misread.
CREATE FUNCTION webhooks.ensure_partition(p_at timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = webhooks, pg_temp SET datestyle = 'ISO' SET timezone = 'UTC' AS $$
DECLARE
    v_width  interval;
    v_start  timestamptz;
    v_end    timestamptz;
    v_suffix text;
    v_table  text;
BEGIN
    IF EXISTS (SELECT 1 FROM partitions WHERE start_at <= p_at AND p_at < end_at) THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(7305000, 2);
    IF EXISTS (SELECT 1 FROM partitions WHERE start_at <= p_at AND p_at < end_at) THEN
        RETURN;
    END IF;
    SELECT partition_width INTO v_width FROM settings;
    v_start := date_bin(v_width, p_at, timestamptz 'epoch');
    -- The neighbours may have been made with another width.
    SELECT least(v_start + v_width, min(start_at)) INTO v_end FROM partitions WHERE start_at > p_at;
    SELECT greatest(v_start, max(end_at)) INTO v_start FROM partitions WHERE end_at <= p_at;
    v_suffix := to_char(v_start AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISSUS');
    -- A caller's transaction that is not read committed may not see the row of a partition that
    -- exists already. It does see the table, and so does its INSERT.
    IF to_regclass('webhooks.' || quote_ident('events_' || v_suffix)) IS NOT NULL THEN
        RETURN;
    END IF;
    FOREACH v_table IN ARRAY ARRAY['events', 'ended_deliveries', 'earlier_attempts'] LOOP
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', v_table || '_' || v_suffix, v_table);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       v_table, v_table || '_' || v_suffix, v_start, v_end);
    END LOOP;
    INSERT INTO partitions (start_at, end_at, suffix) VALUES (v_start, v_end, v_suffix);
END $$;

-- Makes the partitions of the present and of the two spans that follow, so that no publisher has
-- to: a transaction that makes one blocks all others that need it, until it ends. The present is that of
-- the statement: a clock that is read for each span may pass midnight in between, and leave a span out.
CREATE FUNCTION webhooks.ensure_ahead() RETURNS void
LANGUAGE sql SET search_path = webhooks, pg_temp SET timezone = 'UTC' AS $$
    SELECT ensure_partition(statement_timestamp() + n * s.partition_width)
    FROM settings s CROSS JOIN generate_series(0, 2) AS n
$$;

-- Whether a delivery of a partition is pending. The numbers of its events lie close together, and
-- so do the ids of their deliveries, so that this does not read the rest of the backlog.
CREATE FUNCTION webhooks.still_waits(p_start timestamptz, p_end timestamptz) RETURNS boolean
LANGUAGE plpgsql SET search_path = webhooks, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_first bigint;
    v_last  bigint;
BEGIN
    SELECT number INTO v_first FROM events
    WHERE accepted_at >= p_start AND accepted_at < p_end ORDER BY number LIMIT 1;
    SELECT number INTO v_last FROM events
    WHERE accepted_at >= p_start AND accepted_at < p_end ORDER BY number DESC LIMIT 1;
    RETURN EXISTS (
        SELECT 1 FROM pending_deliveries
        WHERE id >= first_delivery(v_first) AND id < first_delivery(v_last + 1)
          AND event_at >= p_start AND event_at < p_end);
END $$;

-- Deletes the events of partitions that ended before a time: at most `p_limit` keys, and after its
-- last key the partition as a whole. A partition with a pending delivery stays. Returns how many
-- events were deleted.
CREATE FUNCTION webhooks.prune(p_before timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql SET search_path = webhooks, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_part   partitions%ROWTYPE;
    v_last   bigint;
    v_count  integer;
    v_pruned integer := 0;
    v_table  text;
BEGIN
    -- The second call of still_waits must see what was committed since the first one.
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'webhooks.prune needs a transaction that is read committed'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    -- One at a time: it does not matter which worker prunes.
    IF NOT pg_try_advisory_xact_lock(7305000, 3) THEN
        RETURN 0;
    END IF;
    -- DROP waits for all who read the partition, and all later queries wait for the DROP.
    PERFORM set_config('lock_timeout', '50ms', true);
    FOR v_part IN SELECT * FROM partitions WHERE end_at <= p_before ORDER BY start_at LOOP
        CONTINUE WHEN still_waits(v_part.start_at, v_part.end_at);
        SELECT max(number), count(*) INTO v_last, v_count FROM (
            SELECT number FROM events
            WHERE accepted_at >= v_part.start_at AND accepted_at < v_part.end_at
              AND number > v_part.pruned_to
            ORDER BY number LIMIT p_limit - v_pruned) old;
        IF v_count > 0 THEN
            DELETE FROM event_keys k USING events e
            WHERE e.accepted_at >= v_part.start_at AND e.accepted_at < v_part.end_at
              AND e.number > v_part.pruned_to AND e.number <= v_last
              AND k.id = e.id AND k.tenant = e.tenant AND k.event = e.number;
            UPDATE partitions SET pruned_to = v_last WHERE start_at = v_part.start_at;
            v_pruned := v_pruned + v_count;
        END IF;
        EXIT WHEN v_pruned >= p_limit;
        BEGIN
            LOCK TABLE ONLY events, ONLY ended_deliveries, ONLY earlier_attempts IN ACCESS EXCLUSIVE MODE;
            -- A replay may have made a delivery pending before the lock.
            CONTINUE WHEN still_waits(v_part.start_at, v_part.end_at);
            FOREACH v_table IN ARRAY ARRAY['events', 'ended_deliveries', 'earlier_attempts'] LOOP
                EXECUTE format('DROP TABLE %I', v_table || '_' || v_part.suffix);
            END LOOP;
            DELETE FROM partitions WHERE start_at = v_part.start_at;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            EXIT; -- A reader holds the lock. The keys are deleted; the next prune drops the rest.
        END;
    END LOOP;
    RETURN v_pruned;
END $$;

-- Deletes events of a tenant that were accepted before a time and have no pending delivery, with
-- all that belongs to them: at most `p_limit`, of the first `p_looked`. Returns how many were
-- deleted.
CREATE FUNCTION webhooks.prune_tenant(
    p_tenant text, p_before timestamptz, p_limit integer, p_looked integer
) RETURNS integer
LANGUAGE plpgsql SET search_path = webhooks, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_numbers bigint[];
    v_ats     timestamptz[];
BEGIN
    -- No replay makes a delivery of the events pending from here on.
    PERFORM pg_advisory_xact_lock(7305003, hashtext(p_tenant));
    -- A range of one tenant, in the order of both columns: the planner must not walk along the events
    -- of all tenants.
    SELECT array_agg(number), array_agg(accepted_at) INTO v_numbers, v_ats
    FROM (SELECT number, accepted_at
          FROM (SELECT number, accepted_at FROM events
                WHERE tenant >= p_tenant AND tenant <= p_tenant AND accepted_at < p_before
                ORDER BY tenant, number LIMIT p_looked) looked
          WHERE NOT EXISTS (SELECT 1 FROM pending_deliveries w WHERE is_of(w.id, looked.number))
          LIMIT p_limit) ended;
    DELETE FROM earlier_attempts a USING unnest(v_numbers, v_ats) AS n(number, at)
    WHERE is_of(a.delivery, n.number) AND a.event_at = n.at;
    DELETE FROM ended_deliveries d USING unnest(v_numbers, v_ats) AS n(number, at)
    WHERE is_of(d.id, n.number) AND d.event_at = n.at;
    DELETE FROM event_keys k USING unnest(v_numbers, v_ats) AS n(number, at), events v
    WHERE v.number = n.number AND v.accepted_at = n.at
      AND k.id = v.id AND k.tenant = v.tenant AND k.event = v.number;
    DELETE FROM events v USING unnest(v_numbers, v_ats) AS n(number, at)
    WHERE v.number = n.number AND v.accepted_at = n.at;
    RETURN coalesce(cardinality(v_numbers), 0);
END $$;

-- Keeps the figures small: at most `p_limit` rows of each kind. Those of all writers are added up
-- by the minute after an hour, and by the hour after `p_minutes`; hours are forgotten after
-- `p_hours`. Returns whether there may be more.
CREATE FUNCTION webhooks.roll_up_figures(
    p_now timestamptz, p_minutes interval, p_hours interval, p_limit integer
) RETURNS boolean
LANGUAGE plpgsql SET search_path = webhooks, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_is_more boolean := false;
    v_count   bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(7305000, 5) THEN
        RETURN false;
    END IF;
    FOR v_stage IN 0 .. 1 LOOP
        WITH old AS (
            SELECT endpoint, kind, at, writer FROM figures
            WHERE stage = v_stage AND at < CASE v_stage WHEN 0 THEN p_now - interval '1 hour'
                                           ELSE date_bin('1 hour', p_now - p_minutes, 'epoch') END
            ORDER BY at LIMIT p_limit FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM figures f USING old o
            WHERE (f.endpoint, f.kind, f.at, f.writer) = (o.endpoint, o.kind, o.at, o.writer)
            RETURNING f.endpoint, f.kind, f.at, f.count
        ), added AS (
            INSERT INTO figures AS f (endpoint, kind, at, writer, count)
            SELECT endpoint, kind, rounded, v_stage, sum(count)
            FROM (SELECT *, CASE v_stage WHEN 0 THEN at ELSE date_bin('1 hour', at, 'epoch') END
                            AS rounded FROM gone) g
            GROUP BY 1, 2, 3
            ON CONFLICT (endpoint, kind, at, writer) DO UPDATE SET count = f.count + excluded.count
        )
        SELECT count(*) INTO v_count FROM gone;
        v_is_more := v_is_more OR v_count >= p_limit;
    END LOOP;
    DELETE FROM figures f USING (
        SELECT endpoint, kind, at, writer FROM figures
        WHERE stage = 2 AND at < p_now - p_hours ORDER BY at LIMIT p_limit
    ) o
    WHERE (f.endpoint, f.kind, f.at, f.writer) = (o.endpoint, o.kind, o.at, o.writer);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_is_more OR v_count >= p_limit;
END $$;
