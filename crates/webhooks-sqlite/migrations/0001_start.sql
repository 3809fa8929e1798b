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
    body        TEXT NOT NULL                   -- the JSON that receivers get
);
CREATE UNIQUE INDEX events_id ON events (id, tenant);
CREATE INDEX events_tenant ON events (tenant, number);

CREATE TABLE deliveries (
    number                 INTEGER PRIMARY KEY,
    event                  INTEGER NOT NULL,    -- events.number
    endpoint               INTEGER NOT NULL,    -- endpoints.number
    status                 TEXT NOT NULL,       -- pending, delivered, failed, retrying, cancelled
    queued_at              INTEGER NOT NULL,    -- the time of acceptance, or of the last replay
    attempts               INTEGER NOT NULL DEFAULT 0,
    attempts_before_replay INTEGER NOT NULL DEFAULT 0,  -- those before the last replay
    due_at                 INTEGER,             -- NULL once it has ended; 0 if its endpoint is ordered
    cancelled              TEXT                 -- the reason: disabled, expired, manual, unregistered
);
CREATE INDEX deliveries_event ON deliveries (event);
CREATE INDEX deliveries_due ON deliveries (endpoint, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX deliveries_undelivered ON deliveries (endpoint)
    WHERE status IN ('failed', 'cancelled');

CREATE TABLE attempts (
    delivery    INTEGER NOT NULL,               -- deliveries.number
    number      INTEGER NOT NULL,               -- from 1
    started_at  INTEGER NOT NULL,
    duration    INTEGER NOT NULL,               -- microseconds
    status_code INTEGER,
    error_class TEXT,
    error       TEXT,
    response    BLOB,                           -- the start of the body
    PRIMARY KEY (delivery, number)
) WITHOUT ROWID;

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
       datetime(nullif(deliveries.due_at, 0) / 1000000, 'unixepoch') AS due_at
FROM deliveries
JOIN events ON events.number = deliveries.event
JOIN endpoints ON endpoints.number = deliveries.endpoint;
