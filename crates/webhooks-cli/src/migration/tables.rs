//! The tables, in the order in which they are copied.

use super::table::Kind::{Bool, Bytes, EventId, ForeignText, Int, Json, List, Text, Time};
use super::table::{Column, Table, renamed, same};

pub(super) const ENDPOINTS: Table = Table {
    name: "endpoints",
    from: "endpoints",
    to: "webhooks.endpoints",
    key: &["number"],
    columns: &[
        same("number", Int),
        same("tenant", Text),
        same("id", Text),
        same("settings", Json),
        same("secrets", Bytes),
        same("state", Text),
        same("disabled", Text),
        same("version", Int),
        same("created_at", Time),
        same("updated_at", Time),
        same("state_since", Time),
        same("failing_since", Time),
        same("failed_at", Time),
        same("tried_for", Int),
        same("blocked_until", Time),
        same("is_current", Bool),
    ],
};

/// The columns of an endpoint that follow from its settings.
pub(super) const ENDPOINT_FURTHER: [&str; 7] =
    ["url", "words", "metadata", "patterns", "is_ordered", "max_workers", "max_claim"];

/// The columns of a subscription, which follow from the endpoint.
pub(super) const SUBSCRIPTION: [&str; 5] =
    ["tenant", "pattern", "endpoint", "is_ordered", "channels"];

/// The records of `webhooks-admin`: applications, keys, sessions, the audit log, answers, jobs, pollers, settings.
pub(super) const RECORDS: Table = Table {
    name: "records",
    from: "admin_records",
    to: "webhooks.admin_records",
    key: &["kind", "scope", "key"],
    columns: &[
        same("kind", Text),
        same("scope", Text),
        same("key", Text),
        same("alias", Text),
        same("version", Int),
        same("created_at", Int),
        same("updated_at", Int),
        same("expires_at", Int),
        same("body", Text),
    ],
};

/// Their work and place name deliveries by number: see `job`.
pub(super) const JOBS: Table = Table {
    name: "jobs",
    from: "jobs",
    to: "webhooks.jobs",
    key: &["number"],
    columns: &[
        same("number", Int),
        same("tenant", Text),
        same("work", Text),
        same("rate", Int),
        same("state", Text),
        same("done", Int),
        same("cursor", ForeignText),
        same("error", ForeignText),
        same("created_at", Time),
        same("updated_at", Time),
        same("request", Bytes),
    ],
};

pub(super) const FIGURES: Table = Table {
    name: "figures",
    from: "figures",
    to: "webhooks.figures",
    key: &["endpoint", "at", "kind"],
    columns: &[same("endpoint", Int), same("at", Time), same("kind", Text), same("count", Int)],
};

pub(super) const EVENTS: Table = Table {
    name: "events",
    from: "events",
    to: "webhooks.events",
    key: &["number"],
    columns: &[
        same("number", Int),
        same("id", EventId),
        same("tenant", Text),
        same("type", Text),
        same("accepted_at", Time),
        same("deliveries", Int),
        same("channels", List),
        same("tags", List),
        same("deliver_at", Time),
        renamed("recipients", "only_ids", List),
        same("expunged_at", Time),
        same("body", Text),
        same("trace", Text),
    ],
};

pub(super) const EVENT_KEY: [&str; 4] = ["id", "tenant", "event", "event_at"];

/// Both the pending and the ended ones. `to` is for checks: they go into two tables.
pub(super) const DELIVERIES: Table = Table {
    name: "deliveries",
    from: "deliveries",
    to: "(
        SELECT id, webhooks.event_of(id) AS event, endpoint, NULL AS status, queued_at, attempts,
               attempts_before_replay, due_at, is_scheduled, NULL AS cancelled, created_at,
               NULL AS ended_at
        FROM webhooks.pending_deliveries
        UNION ALL
        SELECT id, webhooks.event_of(id), endpoint, status, queued_at, attempts,
               attempts_before_replay, NULL, NULL, cancelled, created_at, ended_at
        FROM webhooks.ended_deliveries
    ) AS deliveries",
    key: &["event", "number"],
    columns: &[
        same("number", Int),
        same("event", Int),
        same("endpoint", Int),
        same("status", Text),
        same("queued_at", Time),
        same("attempts", Int),
        same("attempts_before_replay", Int),
        same("due_at", Time),
        same("is_scheduled", Bool),
        same("cancelled", Text),
        same("created_at", Time),
        same("ended_at", Time),
    ],
};

pub(super) const ATTEMPTS: Table = Table {
    name: "attempts",
    from: "attempts",
    to: "webhooks.attempts",
    key: &["delivery", "number"],
    columns: &[
        same("delivery", Int),
        same("number", Int),
        same("endpoint", Int),
        same("started_at", Time),
        renamed("duration", "duration_us", Int),
        same("status_code", Int),
        same("error_class", Text),
        same("error", ForeignText),
        same("response_headers", ForeignText),
        same("response", Bytes),
    ],
};

/// All tables.
pub(super) const ALL: [Table; 7] =
    [ENDPOINTS, RECORDS, JOBS, FIGURES, EVENTS, DELIVERIES, ATTEMPTS];

/// The tables that are copied one row for one row; events come after them, with all that belongs to them.
pub(super) const PLAIN: [Table; 4] = [ENDPOINTS, RECORDS, JOBS, FIGURES];

/// The columns whose values change on the way, so that no sum compares them.
pub(super) const CHANGED: [(&str, &str); 7] = [
    // Deliveries get new numbers. A pending one has its status by its attempts, and an ended one is no longer
    // scheduled.
    ("deliveries", "number"),
    ("deliveries", "status"),
    ("deliveries", "is_scheduled"),
    ("attempts", "delivery"),
    // An attempt of the database has the tenant instead.
    ("attempts", "endpoint"),
    ("jobs", "work"),
    ("jobs", "cursor"),
];

/// Returns whether the values of a column stay the same.
pub(super) fn is_same(table: &Table, column: &Column) -> bool {
    !CHANGED.contains(&(table.from, column.from))
}
