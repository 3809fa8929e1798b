//! The conditions of a query, as SQL.

use rusqlite::types::Value;
use webhooks_core::{DeliveryStatus, EventId};
use webhooks_dispatch::history::{Cursor, Query};
use webhooks_dispatch::transport::ErrorClass;
use webhooks_registry::Subscription;

use super::path::index_of;
use crate::row;

/// The status of a delivery. One that still waits for a closed endpoint counts as cancelled: the writer
/// cancels it in one of its next batches.
pub(crate) const STATUS: &str = "
    CASE WHEN deliveries.due_at IS NOT NULL AND endpoints.state IN ('disabled', 'unregistered')
    THEN 'cancelled' ELSE deliveries.status END";

/// Joins the last attempt of a delivery.
pub(super) const LAST_ATTEMPT: &str = "
    LEFT JOIN attempts AS last ON last.delivery = deliveries.number AND last.number =
        (SELECT max(number) FROM attempts WHERE delivery = deliveries.number)";

/// The conditions of a statement, and the values of their question marks.
#[derive(Default)]
pub(super) struct Filter {
    /// The tables that are joined for them.
    pub(super) joins: &'static str,
    pub(super) text: String,
    pub(super) values: Vec<Value>,
}

impl Filter {
    fn add(&mut self, condition: &str, value: impl Into<Value>) {
        self.text.push_str(" AND ");
        self.extend(condition, value);
    }

    fn extend(&mut self, text: &str, value: impl Into<Value>) {
        self.text.push_str(text);
        self.values.push(value.into());
    }

    fn add_range(&mut self, column: &str, first: i64, last: i64) {
        self.add(&format!("{column} BETWEEN ?"), first);
        self.extend(" AND ?", last);
    }

    /// Adds the condition that an expression has one of some values, if there are any.
    fn add_one_of(&mut self, expression: &str, words: impl Iterator<Item = &'static str>) {
        let words: Vec<&str> = words.collect();
        if words.is_empty() {
            return;
        }
        let marks = vec!["?"; words.len()].join(", ");
        for part in [" AND ", expression, " IN (", &marks, ")"] {
            self.text.push_str(part);
        }
        self.values.extend(words.into_iter().map(|word| Value::from(word.to_owned())));
    }

    /// Adds the conditions on events, in a list of events.
    pub(super) fn events(&mut self, query: &Query) {
        self.event(query);
        if !query.is_about_deliveries() {
            return;
        }
        if let Some(delivery) = query.delivery {
            let event = "events.number = (SELECT event FROM deliveries WHERE number = ?)";
            self.add(event, row::number(delivery));
        }
        let last = if query.is_about_attempts() { LAST_ATTEMPT } else { "" };
        self.text.push_str(
            " AND EXISTS (SELECT 1 FROM deliveries JOIN endpoints
              ON endpoints.number = deliveries.endpoint",
        );
        self.text.push_str(last);
        self.text.push_str(" WHERE deliveries.event = events.number");
        self.delivery(query);
        self.attempt(query, "last");
        self.text.push(')');
    }

    /// Adds the conditions of a query on events.
    pub(super) fn event(&mut self, query: &Query) {
        if let Some(tenant) = &query.tenant {
            self.add("events.tenant = ?", tenant.to_string());
        }
        if let Some(id) = &query.event {
            self.add("events.id = ?", event_key(id));
        }
        match query.event_type.as_ref().map(Subscription::as_str) {
            None | Some("*") => {}
            Some(pattern) => match pattern.strip_suffix(".*") {
                // A range that an index can serve: all that starts with `user.`, since '/' is the character
                // after '.'.
                Some(root) => {
                    self.add("events.type > ?", format!("{root}."));
                    self.add("events.type < ?", format!("{root}/"));
                }
                None => self.add("events.type = ?", pattern.to_owned()),
            },
        }
        // Labels have no character that JSON writes in another way.
        if let Some(channel) = &query.channel {
            self.add("instr(events.channels, ?) > 0", format!("\"{channel}\""));
        }
        if let Some(tag) = &query.tag {
            self.add("instr(events.tags, ?) > 0", format!("\"{tag}\""));
        }
        if let Some(since) = query.since {
            self.add("events.accepted_at >= ?", row::micros(since));
        }
        if let Some(until) = query.until {
            self.add("events.accepted_at < ?", row::micros(until));
        }
    }

    /// Adds the conditions of a query on deliveries.
    pub(super) fn delivery(&mut self, query: &Query) {
        if let Some(endpoint) = &query.endpoint {
            self.add("endpoints.id = ?", endpoint.to_string());
            if let Some(tenant) = &query.tenant {
                self.add("endpoints.tenant = ?", tenant.to_string());
            }
        }
        if let Some(delivery) = query.delivery {
            self.add("deliveries.number = ?", row::number(delivery));
        }
        if !query.statuses.is_empty() {
            self.status(&query.statuses);
        }
        if let Some(attempts) = &query.attempts {
            self.add_range(
                "deliveries.attempts",
                (*attempts.start()).into(),
                (*attempts.end()).into(),
            );
        }
    }

    fn status(&mut self, statuses: &[DeliveryStatus]) {
        if let Some((_, condition)) = index_of(statuses) {
            self.text.push_str(" AND ");
            self.text.push_str(condition);
        }
        self.add_one_of(STATUS, statuses.iter().map(|status| status.as_str()));
    }

    /// Adds the conditions of a query on attempts, which are in the table `attempts`.
    pub(super) fn attempt(&mut self, query: &Query, attempts: &str) {
        let classes = query.error_classes.iter().copied().map(ErrorClass::as_str);
        self.add_one_of(&format!("{attempts}.error_class"), classes);
        if let Some(codes) = &query.status_codes {
            let column = format!("{attempts}.status_code");
            self.add_range(&column, (*codes.start()).into(), (*codes.end()).into());
        }
    }

    /// Adds the place of a page in a list by the number `key`.
    pub(super) fn page(&mut self, query: &Query, key: &str) {
        if let Some(Cursor { key: after, .. }) = query.after {
            self.add(&format!("{key} < ?"), row::integer(after));
        }
        if let Some(Cursor { key: before, .. }) = query.before {
            self.add(&format!("{key} > ?"), row::integer(before));
        }
    }

    /// Bounds the events of a page of deliveries that came with their events, if its place is such a
    /// delivery: their numbers follow those of the events. Without the bound, the page takes longer.
    pub(super) fn page_of_events(&mut self, query: &Query) {
        for (cursor, compare, otherwise) in [(query.after, "<=", i64::MAX), (query.before, ">=", 0)]
        {
            if let Some(Cursor { key, .. }) = cursor {
                let event = format!(
                    "events.number {compare} ifnull((SELECT event FROM deliveries
                         WHERE number = ? AND created_at IS NULL), {otherwise})"
                );
                self.add(&event, row::integer(key));
            }
        }
    }

    /// Adds the place of a page in a list of attempts.
    pub(super) fn page_of_attempts(&mut self, query: &Query) {
        for (cursor, compare) in [(query.after, "<"), (query.before, ">")] {
            if let Some(Cursor { key, attempt }) = cursor {
                let place = format!("(attempts.delivery, attempts.number) {compare} (?");
                self.add(&place, row::integer(key));
                self.extend(", ?)", i64::from(attempt));
            }
        }
    }
}

fn event_key(id: &EventId) -> Value {
    match id.as_uuid_bytes() {
        Some(bytes) => Value::Blob(bytes.to_vec()),
        None => Value::Text(id.to_string()),
    }
}
