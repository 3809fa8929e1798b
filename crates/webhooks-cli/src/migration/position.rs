//! The place at which a migration goes on.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The rows that were copied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// The place of the table in the order of copying.
    pub(super) table: usize,
    /// The key of the last row that was copied of it; empty before the first. In events: the number of the event,
    /// and if not all of its deliveries were copied, the number of the last one and how many were.
    pub(super) after: Vec<Value>,
    /// The number of rows that were copied of all tables.
    pub(crate) rows: u64,
}

impl Position {
    pub(crate) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(crate) fn text(&self) -> String {
        // Numbers and texts all have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns the start of the next table.
    pub(super) fn next_table(&self) -> Self {
        Self { table: self.table + 1, after: Vec::new(), rows: self.rows }
    }

    pub(super) fn number(&self, place: usize) -> i64 {
        self.after.get(place).and_then(Value::as_i64).unwrap_or_default()
    }
}
