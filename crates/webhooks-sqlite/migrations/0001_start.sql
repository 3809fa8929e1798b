-- Times are microseconds since 1970 (UTC). Numbers only grow, and are never used again.

-- Endpoints, those of before included. An endpoint that is enabled after it was disabled, or registered
-- after it was unregistered, gets a new row, so that old deliveries are not mistaken for new ones. For
-- everybody else, all rows of one tenant and id are one endpoint.
CREATE TABLE endpoints (
    number        INTEGER PRIMARY KEY,
    tenant        TEXT NOT NULL,
    id            TEXT NOT NULL,
    settings      TEXT NOT NULL,                -- JSON, without the secrets
    secrets       BLOB NOT NULL,                -- JSON, encrypted if a key is configured
    state         TEXT NOT NULL,                -- active, paused, disabled, unregistered
    disabled      TEXT,                         -- the reason if disabled: failing, gone, manual
    version       INTEGER NOT NULL,             -- grows with each change, in all rows of the endpoint
    created_at    INTEGER NOT NULL,             -- the time of the first registration
    updated_at    INTEGER NOT NULL,             -- the time of the last change
    state_since   INTEGER NOT NULL,             -- the time at which it entered its state
    failing_since INTEGER,                      -- the first failure since the last success
    failed_at     INTEGER,                      -- the last failure that was noted
    tried_for     INTEGER,                      -- microseconds in which attempts were made and failed
    blocked_until INTEGER NOT NULL DEFAULT 0,   -- the time at which an ordered endpoint goes on
    is_current    INTEGER NOT NULL DEFAULT 1    -- 0 once unregistered or replaced by a newer row
);
CREATE UNIQUE INDEX endpoints_current ON endpoints (tenant, id) WHERE is_current = 1;
CREATE INDEX endpoints_id ON endpoints (tenant, id);

CREATE TABLE events (
    number      INTEGER PRIMARY KEY,
    id          NOT NULL,                       -- the 16 bytes of a UUID, or the publisher's text
    tenant      TEXT NOT NULL,
    type        TEXT NOT NULL,
    accepted_at INTEGER NOT NULL,
    deliveries  INTEGER NOT NULL,               -- the number of its deliveries when it was accepted
    channels    TEXT,                           -- a JSON array, by which endpoints filter
    tags        TEXT,                           -- a JSON array, by which people find it
    deliver_at  INTEGER,                        -- nothing is delivered before, if it is scheduled
    recipients  TEXT,                           -- a JSON array of ids: the only endpoints that get it
    expunged_at INTEGER,                        -- the time at which its content was deleted
    body        TEXT NOT NULL,                  -- the JSON that receivers get; empty once expunged
    trace       TEXT                            -- traceparent and, behind a space, tracestate
);
CREATE UNIQUE INDEX events_id ON events (id, tenant);
CREATE INDEX events_tenant ON events (tenant, number);

CREATE TABLE deliveries (
    number                 INTEGER PRIMARY KEY,
    event                  INTEGER NOT NULL,    -- events.number
    endpoint               INTEGER NOT NULL,    -- endpoints.number
    status                 TEXT NOT NULL,       -- pending, delivered, failed, retrying, cancelled
    queued_at              INTEGER NOT NULL,    -- it grows old from then: accepted, replayed, scheduled
    attempts               INTEGER NOT NULL DEFAULT 0,
    attempts_before_replay INTEGER NOT NULL DEFAULT 0,  -- those before the last replay
    due_at                 INTEGER,             -- NULL once it has ended; 0 if its endpoint is ordered
    is_scheduled           INTEGER,             -- 1 while it waits for the time for which it is scheduled
    cancelled              TEXT,                -- the reason: disabled, expired, expunged, manual, unregistered
    created_at             INTEGER,             -- if it was added by a replay; else its event's accepted_at
    ended_at               INTEGER              -- NULL while it waits
);
CREATE INDEX deliveries_event ON deliveries (event);
CREATE INDEX deliveries_due ON deliveries (endpoint, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX deliveries_undelivered ON deliveries (endpoint)
    WHERE status IN ('failed', 'cancelled');
-- The few that did not come with their events: the numbers of the others follow those of the events.
CREATE INDEX deliveries_added ON deliveries (endpoint, number) WHERE created_at IS NOT NULL;

CREATE TABLE attempts (
    delivery    INTEGER NOT NULL,               -- deliveries.number
    number      INTEGER NOT NULL,               -- from 1
    endpoint    INTEGER NOT NULL,               -- endpoints.number
    started_at  INTEGER NOT NULL,
    duration    INTEGER NOT NULL,               -- microseconds
    status_code INTEGER,
    error_class TEXT,
    error       TEXT,
    response_headers TEXT,                      -- those without secrets, one per line: retry-after: 120
    response    BLOB,                           -- the start of the body
    PRIMARY KEY (delivery, number)
) WITHOUT ROWID;
-- Those that did not simply succeed, by time: a service tells of them. Most attempts are not among them.
CREATE INDEX attempts_troubles ON attempts (started_at) WHERE number > 1 OR error IS NOT NULL;
-- All of them, in the order in which they ended: people follow those of one tenant. The tenant is not the
-- first column: new entries would be all over the index, and a commit would write a page of it for each
-- tenant, 4 KiB in the log for each attempt instead of about 50 bytes. A reader passes over the entries of
-- others: the endpoint is in them, so it needs no row.
CREATE INDEX attempts_ended ON attempts (started_at + duration, delivery, number, endpoint);

-- Counts of endpoints by minute or, once they are older than 48 hours, by hour.
CREATE TABLE figures (
    endpoint INTEGER NOT NULL,                  -- endpoints.number
    at       INTEGER NOT NULL,                  -- the start of the minute or hour
    kind     TEXT NOT NULL,                     -- accepted, delivered, failure:5xx, within:50ms, ...
    count    INTEGER NOT NULL,
    PRIMARY KEY (endpoint, at, kind)
) WITHOUT ROWID;
-- Each row is in one of them: minutes are added up to hours, and hours are deleted.
CREATE INDEX figures_minutes ON figures (at) WHERE at % 3600000000 <> 0;
CREATE INDEX figures_hours ON figures (at) WHERE at % 3600000000 = 0;

CREATE TABLE jobs (
    number     INTEGER PRIMARY KEY,
    tenant     TEXT,                            -- NULL for an operator's job
    work       TEXT NOT NULL,                   -- JSON
    rate       INTEGER,                         -- the most deliveries per second
    state      TEXT NOT NULL,                   -- running, stopped, finished, failed
    done       INTEGER NOT NULL DEFAULT 0,      -- the number of deliveries so far
    cursor     TEXT,                            -- the place at which it goes on
    error      TEXT,                            -- the reason why it failed
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    request    BLOB UNIQUE                      -- the 16 bytes of the number of the request for it
);
CREATE INDEX jobs_tenant ON jobs (tenant, number);
CREATE INDEX jobs_running ON jobs (number) WHERE state = 'running';

-- The next numbers at the time of the last deletion of rows.
CREATE TABLE counters (
    name TEXT PRIMARY KEY,                      -- event, delivery
    next INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO counters VALUES ('event', 1), ('delivery', 1);

-- For people: deliveries with the names of their events and endpoints.
CREATE VIEW deliveries_view AS
SELECT 'dlv_' || deliveries.number AS delivery, deliveries.status, deliveries.cancelled,
       endpoints.id AS endpoint,
       CASE typeof(events.id) WHEN 'blob' THEN lower(
           substr(hex(events.id), 1, 8) || '-' || substr(hex(events.id), 9, 4) || '-' ||
           substr(hex(events.id), 13, 4) || '-' || substr(hex(events.id), 17, 4) || '-' ||
           substr(hex(events.id), 21)) ELSE events.id END AS event,
       events.type, events.tenant, deliveries.attempts,
       datetime(deliveries.queued_at / 1000000, 'unixepoch') AS queued_at,
       datetime(nullif(deliveries.due_at, 0) / 1000000, 'unixepoch') AS due_at,
       datetime(deliveries.ended_at / 1000000, 'unixepoch') AS ended_at
FROM deliveries
JOIN events ON events.number = deliveries.event
JOIN endpoints ON endpoints.number = deliveries.endpoint;
