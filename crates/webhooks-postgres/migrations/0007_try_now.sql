-- Makes a delivery due now that waits for a later time, for an open endpoint; its retries then start
-- anew, as after a replay. One that is claimed, or is due already, stays as it is. Returns its endpoint,
-- and `due`, `paused`, `waiting` or `in flight`; no row if it is not pending.
--
-- Of an ordered endpoint, the first delivery waits by `blocked_until` if it is retrying, and the others
-- wait for their turn.
CREATE FUNCTION webhooks.try_now(p_id bigint, p_now timestamptz)
RETURNS TABLE (endpoint bigint, result text)
LANGUAGE plpgsql
SET search_path = webhooks, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_delivery record;
    v_endpoint record;
    v_is_later boolean;
BEGIN
    SELECT w.* INTO v_delivery FROM pending_deliveries w WHERE w.id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- A settlement may have blocked it meanwhile, and a disabling may have closed it.
    SELECT e.state, e.is_open, e.is_ordered, e.blocked_until INTO v_endpoint
    FROM endpoints e WHERE e.number = v_delivery.endpoint FOR NO KEY UPDATE;
    IF NOT v_endpoint.is_open THEN
        RETURN;
    END IF;
    endpoint := v_delivery.endpoint;
    IF v_delivery.leased_until > lease_clock(p_now) THEN
        result := 'in flight';
        RETURN NEXT;
        RETURN;
    END IF;
    IF v_endpoint.is_ordered AND v_delivery.is_scheduled IS NULL THEN
        v_is_later := v_delivery.attempts > v_delivery.attempts_before_replay
            AND v_endpoint.blocked_until > p_now
            AND NOT EXISTS (
                SELECT 1 FROM pending_deliveries f
                WHERE f.endpoint = v_delivery.endpoint
                  AND (f.due_at, f.id) < (v_delivery.due_at, v_delivery.id));
        IF v_is_later THEN
            UPDATE endpoints e SET blocked_until = 'epoch' WHERE e.number = v_delivery.endpoint;
        END IF;
    ELSE
        v_is_later := v_delivery.due_at > p_now;
    END IF;
    IF v_is_later THEN
        UPDATE pending_deliveries w SET queued_at = p_now, attempts_before_replay = w.attempts,
            due_at = CASE WHEN v_endpoint.is_ordered THEN 'epoch' ELSE p_now END,
            is_scheduled = NULL, leased_until = NULL, token = NULL
        WHERE w.id = p_id;
    END IF;
    result := CASE WHEN v_endpoint.state = 'paused' THEN 'paused'
                   WHEN v_is_later THEN 'due' ELSE 'waiting' END;
    RETURN NEXT;
END $$;
