-- Numbers only grow, and no number is used twice. Texts that are compared have the collation "C",
-- so that their order is the order of their bytes, in every locale of the database.
--
-- Advisory locks:
--   (7305000, 1)  migrations
--   (7305000, 2)  the making of partitions
--   (7305000, 3)  a prune
--   (7305000, 4)  the joining of a worker
--   (7305000, 5)  the adding up of figures
--   (7305001, n)  an endpoint; n is a hash of its tenant and id
--   (7305003, n)  the events of a tenant: a transaction that adds deliveries to them or deletes
--                 something of them has it alone, and replays of ended deliveries share it; n is a
--                 hash of the tenant
--   (7305004, n)  the number of a tenant's endpoints, while one is added that is limited; n is a
--                 hash of the tenant
--
-- A transaction takes its locks in this order: the events of tenants, pending deliveries by their
-- ids, endpoints' advisory locks and then their rows by their numbers, the number of a tenant's
-- endpoints, and figures last, by their keys.

-- Endpoints, present and former ones. An endpoint that is enabled after it was disabled, or
-- registered after it was unregistered, gets a new row, so that deliveries that waited before are
-- not mistaken for those that wait now. To all callers, the rows of one tenant and id are one
-- endpoint.
CREATE TABLE webhooks.endpoints (
    number        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id            text COLLATE "C" NOT NULL,
    tenant        text COLLATE "C" NOT NULL,
    settings      json NOT NULL,                -- without the secrets
    secrets       bytea NOT NULL,               -- JSON, encrypted if a key is configured
    version       bigint NOT NULL DEFAULT 1,    -- grows with each change of settings or state
    created_at    timestamptz NOT NULL DEFAULT now(), -- when its id was registered
    updated_at    timestamptz NOT NULL DEFAULT now(), -- the last change of settings or state
    state_since   timestamptz NOT NULL DEFAULT now(),
    -- Four copies of parts of the settings, by which lists filter.
    url           text COLLATE "C" NOT NULL DEFAULT '',
    words         text COLLATE "C" NOT NULL DEFAULT '', -- id, name, description, URL; in lower case
    metadata      jsonb NOT NULL DEFAULT '{}',
    patterns      text[] NOT NULL DEFAULT '{}', -- of event types
    state         text NOT NULL,                -- active, paused, disabled, unregistered
    -- An open row gets deliveries; those of a closed one are cancelled bit by bit.
    is_open       boolean NOT NULL GENERATED ALWAYS AS (state IN ('active', 'paused')) STORED,
    is_current    boolean NOT NULL DEFAULT true,-- false once unregistered, or replaced by a new row
    is_ordered    boolean NOT NULL,
    max_workers   integer NOT NULL,             -- the most that may serve it: see share.rs
    max_claim     integer,                      -- the deliveries of one claim, if a rate limits them
    disabled      text,                         -- why it was disabled: failing, gone, manual
    failing_since timestamptz,                  -- the first failure since the last success
    failed_at     timestamptz,                  -- the last failure that was noted
    tried_for     bigint,                       -- microseconds in which it was tried and failed
    -- The time until which an ordered endpoint waits for the retry of its first delivery.
    blocked_until timestamptz NOT NULL DEFAULT 'epoch',
    -- Counts its deliveries that were cancelled by hand. A worker that has preclaimed some (has
    -- claimed them in the statement that published them) checks its claims when the count changes.
    cancels       bigint NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX endpoints_current ON webhooks.endpoints (tenant, id) WHERE is_current;
CREATE INDEX endpoints_id ON webhooks.endpoints (id, tenant);
CREATE INDEX endpoints_created ON webhooks.endpoints (tenant, created_at, id) WHERE is_current;
CREATE INDEX endpoints_tenant ON webhooks.endpoints (tenant, number);
CREATE INDEX endpoints_created_all ON webhooks.endpoints (created_at, tenant, id) WHERE is_current;

-- The patterns of event types that go to open endpoints: '*', 'user.*', 'user.created'.
CREATE TABLE webhooks.subscriptions (
    tenant     text COLLATE "C" NOT NULL,
    pattern    text COLLATE "C" NOT NULL,
    endpoint   bigint NOT NULL,                 -- endpoints.number
    is_ordered boolean NOT NULL,                -- as the endpoint is
    channels   text[],                          -- the endpoint's; NULL if it gets those of all
    PRIMARY KEY (tenant, pattern, endpoint)
);
CREATE INDEX subscriptions_endpoint ON webhooks.subscriptions (endpoint);

CREATE SEQUENCE webhooks.event_numbers MAXVALUE 8796093022207; -- 43 bits

-- The id of a delivery is the number of its event, followed by 20 bits for its ordinal among the
-- event's deliveries, from 0. So the deliveries of an event are found by their ids, without another
-- index.
CREATE FUNCTION webhooks.event_of(p_delivery bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN p_delivery >> 20;
CREATE FUNCTION webhooks.first_delivery(p_event bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN p_event << 20;
-- Whether a delivery belongs to an event. It is a range of ids, so that it can use an index by id.
CREATE FUNCTION webhooks.is_of(p_delivery bigint, p_event bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_delivery >= p_event << 20 AND p_delivery < (p_event + 1) << 20;

-- The ids that are taken. They have a table of their own, because a unique index of a partitioned
-- table must contain the partition key.
CREATE TABLE webhooks.event_keys (
    id       text COLLATE "C" NOT NULL,
    tenant   text COLLATE "C" NOT NULL,
    event    bigint NOT NULL,                   -- events.number
    event_at timestamptz NOT NULL,              -- events.accepted_at
    PRIMARY KEY (id, tenant)
);

-- Events, ended deliveries and attempts lie in partitions by the time at which their event was
-- accepted, so that everything that belongs to an event is dropped with it.
CREATE TABLE webhooks.events (
    number      bigint NOT NULL,
    accepted_at timestamptz NOT NULL,
    tenant      text COLLATE "C" NOT NULL,
    id          text COLLATE "C" NOT NULL,
    type        text COLLATE "C" NOT NULL,
    deliveries  integer NOT NULL,               -- the number that was made when it was published
    body        text NOT NULL,                  -- the JSON that receivers get; '' once expunged
    channels    text[],                         -- NULL if there are none, as all columns below
    tags        text[],
    deliver_at  timestamptz,                    -- the time before which nothing is delivered
    only_ids    text[],                         -- the ids of the endpoints that alone get it
    expunged_at timestamptz,                    -- when its content was deleted
    trace       text,                           -- traceparent and, behind a space, tracestate
    PRIMARY KEY (number, accepted_at)
) PARTITION BY RANGE (accepted_at);
-- A tenant's pages, replays and prunes read no events of others.
CREATE INDEX events_tenant ON webhooks.events (tenant, number);

-- A delivery that has ended, with the attempt that ended it, if one did.
CREATE TABLE webhooks.ended_deliveries (
    id               bigint NOT NULL,
    event_at         timestamptz NOT NULL,
    endpoint         bigint NOT NULL,
    status           text NOT NULL,             -- delivered, failed, cancelled
    queued_at        timestamptz NOT NULL,      -- when it was accepted, or last replayed
    created_at       timestamptz,               -- when a replay of missed events made it, if one did
    ended_at         timestamptz NOT NULL,
    attempts         integer NOT NULL,
    attempts_before_replay integer NOT NULL,    -- the attempts before it was last replayed
    cancelled        text,                      -- why: disabled, expired, expunged, manual, unregistered
    started_at       timestamptz,               -- of the last attempt, as all columns below
    duration_us      bigint,                    -- microseconds
    status_code      integer,
    error_class      text,
    error            text,
    response_headers text,                      -- those that hold no secret, one per line
    response         bytea,                     -- the start of the body
    tenant           text COLLATE "C",
    PRIMARY KEY (id, event_at)
) PARTITION BY RANGE (event_at);
CREATE INDEX ended_deliveries_endpoint ON webhooks.ended_deliveries (endpoint, id);
CREATE INDEX ended_deliveries_undelivered ON webhooks.ended_deliveries (endpoint, id)
    WHERE status IN ('failed', 'cancelled');
-- Those whose last attempt did not simply succeed, by time: a service tells of them.
CREATE INDEX ended_deliveries_troubles ON webhooks.ended_deliveries (started_at, id, attempts)
    WHERE attempts > 1 OR error IS NOT NULL;
-- The last attempts of a tenant in the order in which they ended: people follow them.
CREATE INDEX ended_deliveries_attempt_ended ON webhooks.ended_deliveries
    (tenant, ((started_at AT TIME ZONE 'UTC') + duration_us * interval '1 microsecond'), id)
    WHERE started_at IS NOT NULL;

-- Attempts that did not end their delivery, or after which it was replayed.
CREATE TABLE webhooks.earlier_attempts (
    delivery         bigint NOT NULL,
    number           integer NOT NULL,          -- from 1
    event_at         timestamptz NOT NULL,
    started_at       timestamptz NOT NULL,
    duration_us      bigint NOT NULL,
    status_code      integer,
    error_class      text,
    error            text,
    response_headers text,
    response         bytea,
    tenant           text COLLATE "C" NOT NULL,
    PRIMARY KEY (delivery, number, event_at)
) PARTITION BY RANGE (event_at);
-- A delivery that is replayed brings its last attempt here, which may be a first one that succeeded.
CREATE INDEX earlier_attempts_troubles ON webhooks.earlier_attempts (started_at, delivery, number)
    WHERE number > 1 OR error IS NOT NULL;
CREATE INDEX earlier_attempts_ended ON webhooks.earlier_attempts
    (tenant, ((started_at AT TIME ZONE 'UTC') + duration_us * interval '1 microsecond'), delivery, number);

-- The queue: deliveries that have not ended. Their status is pending, retrying or, for a closed
-- endpoint, cancelled. Rows are narrow, and a fifth of each page stays free, so that a claim changes
-- the row within its page and no index (a HOT update: neither lease nor token is indexed). Vacuum
-- starts after a fixed number of dead rows, not after a share of the table, and makes no pauses, so
-- that claims soon no longer pass over the rows of ended deliveries.
CREATE TABLE webhooks.pending_deliveries (
    id               bigint PRIMARY KEY,
    endpoint         bigint NOT NULL,           -- endpoints.number
    -- 'epoch' if its endpoint is ordered and it is not scheduled, so that the index has the endpoint's
    -- deliveries in the order of their ids; just before it while the delivery is in flight, so that
    -- this one is the first. Their retries wait by endpoints.blocked_until.
    due_at           timestamptz NOT NULL,
    event_at         timestamptz NOT NULL,
    queued_at        timestamptz NOT NULL,
    attempts         integer NOT NULL DEFAULT 0,
    attempts_before_replay integer NOT NULL DEFAULT 0,
    leased_until     timestamptz,               -- NULL unless it is claimed
    token            bigint,                    -- of the claim
    created_at       timestamptz,               -- when a replay of missed events made it, if one did
    bytes            integer NOT NULL DEFAULT 0, -- of its event's body
    -- True until the first attempt if its event was to be delivered later: then it is due at that
    -- time, also if its endpoint is ordered, and so comes after those that wait then.
    is_scheduled     boolean
) WITH (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX pending_deliveries_due ON webhooks.pending_deliveries (endpoint, due_at, id);

-- The clock of the leases: the server's, so that leases do not depend on the clocks of workers.
-- Tests with a simulated time replace it by one that returns the caller's time.
CREATE FUNCTION webhooks.lease_clock(p_now timestamptz) RETURNS timestamptz
LANGUAGE sql VOLATILE AS $$ SELECT clock_timestamp() $$;

-- The live workers: webhooks.heartbeat keeps them up to date.
CREATE TABLE webhooks.workers (
    id         bigint PRIMARY KEY,
    joined_at  timestamptz NOT NULL,
    seen_at    timestamptz NOT NULL,
    expires_at timestamptz NOT NULL             -- it counts as dead from then on, without a heartbeat
) WITH (fillfactor = 50);

-- The settings that callers in SQL share with programs, in one row.
CREATE TABLE webhooks.settings (
    is_only         boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    partition_width interval NOT NULL DEFAULT '1 day',
    max_body        integer NOT NULL DEFAULT 1048576 -- bytes of a body, for webhooks.publish_event
);
INSERT INTO webhooks.settings DEFAULT VALUES;

CREATE TABLE webhooks.partitions (
    start_at  timestamptz PRIMARY KEY,
    end_at    timestamptz NOT NULL,
    suffix    text NOT NULL,                    -- of the names: events_…, ended_deliveries_…, earlier_attempts_…
    pruned_to bigint NOT NULL DEFAULT 0         -- the last event whose key was deleted
);

-- Bulk replays and cancellations.
CREATE TABLE webhooks.jobs (
    number       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant       text COLLATE "C",              -- NULL for an operator's job
    work         text NOT NULL,                 -- JSON
    rate         bigint,                        -- the most deliveries per second
    state        text NOT NULL,                 -- running, stopped, finished, failed
    done         bigint NOT NULL DEFAULT 0,     -- deliveries
    cursor       text,                          -- the place at which it goes on
    error        text,                          -- why it failed
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    leased_until timestamptz,                   -- NULL unless a worker works on it
    token        bigint,                        -- of that lease
    request      bytea UNIQUE                   -- the 16 bytes of the number of the request for it
);
CREATE INDEX jobs_running ON webhooks.jobs (updated_at, number) WHERE state = 'running';
CREATE INDEX jobs_tenant ON webhooks.jobs (tenant, number);

-- All deliveries, for people and for history, with the ids of their events and endpoints.
CREATE VIEW webhooks.deliveries_view AS
SELECT all_.id, events.id AS event, events.type, events.tenant, endpoints.id AS endpoint,
       all_.status, all_.cancelled, all_.attempts, all_.attempts_before_replay,
       coalesce(all_.created_at, all_.event_at) AS created_at, all_.queued_at, all_.due_at,
       all_.leased_until, all_.ended_at, events.channels, events.tags, events.expunged_at,
       webhooks.event_of(all_.id) AS event_number, all_.event_at, all_.endpoint AS endpoint_number,
       all_.is_pending
FROM (
    SELECT true AS is_pending, w.id, w.event_at, w.endpoint,
           CASE WHEN NOT e.is_open THEN 'cancelled'
                WHEN w.attempts > w.attempts_before_replay THEN 'retrying'
                ELSE 'pending' END AS status,
           CASE WHEN NOT e.is_open THEN e.state END AS cancelled, w.created_at, w.queued_at,
           w.attempts, w.attempts_before_replay,
           CASE WHEN e.is_open THEN greatest(w.due_at, w.queued_at) END AS due_at,
           CASE WHEN e.is_open THEN w.leased_until END AS leased_until,
           CASE WHEN NOT e.is_open THEN e.state_since END AS ended_at
    FROM webhooks.pending_deliveries w JOIN webhooks.endpoints e ON e.number = w.endpoint
    UNION ALL
    SELECT false, id, event_at, endpoint, status, cancelled, created_at, queued_at, attempts,
           attempts_before_replay, NULL, NULL, ended_at
    FROM webhooks.ended_deliveries
) all_
JOIN webhooks.events
    ON events.number = webhooks.event_of(all_.id) AND events.accepted_at = all_.event_at
JOIN webhooks.endpoints ON endpoints.number = all_.endpoint;

-- All attempts.
CREATE VIEW webhooks.attempts AS
SELECT * FROM webhooks.earlier_attempts
UNION ALL
SELECT id, attempts, event_at, started_at, duration_us, status_code, error_class, error,
       response_headers, response, tenant
FROM webhooks.ended_deliveries WHERE started_at IS NOT NULL;

-- Counts by endpoint, kind and span of time. The words of the kinds are those of `FigureKind` of
-- webhooks-dispatch. A transaction counts in the rows of its writer, so that no transactions of
-- different processes wait for each other. A prune adds the rows of all writers up, first by the
-- minute and later by the hour.
CREATE TABLE webhooks.figures (
    endpoint bigint NOT NULL,                   -- endpoints.number
    kind     text COLLATE "C" NOT NULL,
    at       timestamptz NOT NULL,              -- the start of the minute or hour
    -- A worker, from 2^32 on, for its settlements; minus a worker for its publishes; minus a
    -- transaction's id for others; 0 for a minute and 1 for an hour that was added up.
    writer   bigint NOT NULL,
    -- 0 while it is counted, 1 for a minute and 2 for an hour that was added up.
    stage    smallint NOT NULL GENERATED ALWAYS
        AS (CASE writer WHEN 0 THEN 1 WHEN 1 THEN 2 ELSE 0 END) STORED,
    count    bigint NOT NULL,
    PRIMARY KEY (endpoint, kind, at, writer)
) WITH (fillfactor = 70);
CREATE INDEX figures_at ON webhooks.figures (stage, at);

-- Returns the writer of the figures of a transaction that no other one takes turns with.
CREATE FUNCTION webhooks.own_writer() RETURNS bigint
LANGUAGE sql VOLATILE RETURN -(pg_current_xact_id()::text::bigint);

-- Adds counts to the figures of a minute, 1 each unless given. Each is for kinds that are joined by
-- spaces, or for none if NULL. It is the last thing that a transaction does, and its rows are locked
-- in the order of their keys.
--
-- In PL/pgSQL, which keeps plans. A function in SQL would be planned in each call.
CREATE FUNCTION webhooks.add_figures(
    p_endpoints bigint[], p_kinds text[], p_now timestamptz, p_writer bigint,
    p_counts bigint[] DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql SET search_path = webhooks, pg_temp AS $$
BEGIN
    INSERT INTO figures AS f (endpoint, kind, at, writer, count)
    SELECT g.endpoint, k.kind, date_bin('1 minute', p_now, 'epoch'), p_writer, sum(g.count)
    FROM (
        SELECT u.endpoint, u.kinds, sum(coalesce(u.count, 1)) AS count
        FROM unnest(p_endpoints, p_kinds, p_counts) AS u(endpoint, kinds, count)
        WHERE u.kinds IS NOT NULL GROUP BY u.endpoint, u.kinds
    ) g
    CROSS JOIN LATERAL unnest(string_to_array(g.kinds, ' ')) AS k(kind)
    GROUP BY g.endpoint, k.kind ORDER BY g.endpoint, k.kind
    ON CONFLICT (endpoint, kind, at, writer) DO UPDATE SET count = f.count + excluded.count;
END $$;
