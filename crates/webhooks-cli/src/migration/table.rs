//! A table of the file, and the one that gets its rows.

use std::fmt::Write as _;

use thiserror::Error;
use webhooks_core::{EventId, Timestamp};
use webhooks_sqlite::rusqlite::{Row, types::ValueRef};

use super::copy_text::{Field, array, bytea};

/// The kinds of values, and how each is converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An integer.
    Int,
    /// 0 or 1; a `boolean`.
    Bool,
    /// Microseconds since 1970; a `timestamptz`.
    Time,
    /// A text.
    Text,
    /// A text from elsewhere, which may hold a NUL. No text of PostgreSQL does, so its store replaces them.
    ForeignText,
    /// A text of JSON; a `json`.
    Json,
    /// A JSON array of texts; a `text[]`.
    List,
    /// A BLOB, or a TEXT that was stored as one for people to read; a `bytea`.
    Bytes,
    /// The 16 bytes of a UUID, or a text; a text.
    EventId,
}

/// A column of the file, and the one that gets its values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) kind: Kind,
}

/// Returns a column of the same name.
pub(super) const fn same(name: &'static str, kind: Kind) -> Column {
    Column { from: name, to: name, kind }
}

/// Returns a column with another name.
pub(super) const fn renamed(from: &'static str, to: &'static str, kind: Kind) -> Column {
    Column { from, to, kind }
}

/// A table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    /// The word for people.
    pub(super) name: &'static str,
    /// The table of the file.
    pub(super) from: &'static str,
    /// The table of the database.
    pub(super) to: &'static str,
    /// The columns of the file by which its rows are in order.
    pub(super) key: &'static [&'static str],
    pub(super) columns: &'static [Column],
}

/// A value that cannot be converted. It is not shown, since it may be a secret.
#[derive(Debug, Error)]
#[error("a value of the column {column:?} of the table {table:?} cannot be read")]
pub(crate) struct BadValue {
    table: &'static str,
    column: &'static str,
}

impl Table {
    /// Returns the columns of the file, as a list of SQL.
    pub(super) fn select(&self) -> String {
        let columns: Vec<&str> = self.columns.iter().map(|column| column.from).collect();
        columns.join(", ")
    }

    /// Returns the statement that copies rows with these columns behind the table's own.
    pub(super) fn copy(&self, further: &[&str]) -> String {
        let columns: Vec<&str> =
            self.columns.iter().map(|column| column.to).chain(further.iter().copied()).collect();
        copy(self.to, &columns)
    }

    /// Converts the columns of a row, which begin at `first`.
    pub(super) fn fields(&self, row: &Row<'_>, first: usize) -> Result<Vec<Field>, BadValue> {
        let field = |(place, column): (usize, &Column)| {
            let bad = || BadValue { table: self.from, column: column.from };
            let value = row.get_ref(first + place).map_err(|_missing| bad())?;
            column.kind.convert(value).ok_or_else(bad)
        };
        self.columns.iter().enumerate().map(field).collect()
    }

    /// Returns the place of a column.
    pub(super) fn place(&self, column: &str) -> usize {
        self.columns.iter().position(|found| found.from == column).unwrap_or(usize::MAX)
    }
}

/// Returns the statement that copies rows into columns.
pub(super) fn copy(table: &str, columns: &[&str]) -> String {
    format!("COPY {table} ({}) FROM STDIN", columns.join(", "))
}

impl Kind {
    /// Returns a value as PostgreSQL reads it; `None` if it is of another kind.
    pub(super) fn convert(self, value: ValueRef<'_>) -> Option<Field> {
        if value == ValueRef::Null {
            return Some(None);
        }
        let text = |value: ValueRef<'_>| value.as_str().ok().map(str::to_owned);
        let converted = match (self, value) {
            (Self::Int, ValueRef::Integer(number)) => number.to_string(),
            (Self::Bool, ValueRef::Integer(0)) => "f".to_owned(),
            (Self::Bool, ValueRef::Integer(1)) => "t".to_owned(),
            (Self::Time, ValueRef::Integer(micros)) => time(micros)?,
            (Self::Text | Self::Json, ValueRef::Text(_)) => text(value)?,
            (Self::ForeignText, ValueRef::Text(_)) => text(value)?.replace('\0', "\u{fffd}"),
            (Self::List, ValueRef::Text(bytes)) => {
                let list: Vec<String> = serde_json::from_slice(bytes).ok()?;
                array(&list)
            }
            (Self::Bytes, ValueRef::Blob(bytes) | ValueRef::Text(bytes)) => bytea(bytes),
            (Self::EventId, ValueRef::Blob(bytes)) => {
                EventId::from_uuid_bytes(bytes.try_into().ok()?).to_string()
            }
            (Self::EventId, ValueRef::Text(_)) => text(value)?,
            _ => return None,
        };
        Some(Some(converted))
    }
}

/// Returns the time that is these microseconds after 1970, unless it is after all that a `Timestamp` can be.
pub(super) fn at(micros: i64) -> Option<Timestamp> {
    let micros = u64::try_from(micros).ok()?;
    Some(Timestamp::from_unix_microseconds(micros))
        .filter(|time| time.as_unix_microseconds() == micros)
}

fn time(micros: i64) -> Option<String> {
    let mut text = String::new();
    // It fails for times that no calendar has.
    write!(text, "{}", at(micros)?).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, value: ValueRef<'_>, expected: Option<&str>) {
        let found = kind.convert(value);
        assert_eq!(found.as_ref().map(|field| field.as_deref().unwrap()), expected, "{kind:?}");
    }

    #[test]
    fn values_are_converted_exactly() {
        check(Kind::Int, ValueRef::Integer(i64::MIN), Some("-9223372036854775808"));
        check(Kind::Bool, ValueRef::Integer(1), Some("t"));
        check(Kind::Time, ValueRef::Integer(0), Some("1970-01-01T00:00:00Z"));
        check(
            Kind::Time,
            ValueRef::Integer(1_000_000_000_000_001),
            Some("2001-09-09T01:46:40.000001Z"),
        );
        check(Kind::ForeignText, ValueRef::Text(b"a\0b"), Some("a\u{fffd}b"));
        check(Kind::List, ValueRef::Text(br#"["a","b c"]"#), Some(r#"{"a","b c"}"#));
        check(Kind::Bytes, ValueRef::Text(b"ok"), Some(r"\x6f6b"));
        check(Kind::EventId, ValueRef::Text(b"mine"), Some("mine"));
        let id = EventId::from_uuid_bytes([7; 16]).to_string();
        check(Kind::EventId, ValueRef::Blob(&[7; 16]), Some(&id));
    }

    #[test]
    fn values_of_another_kind_are_refused() {
        check(Kind::Int, ValueRef::Text(b"1"), None);
        check(Kind::Bool, ValueRef::Integer(2), None);
        check(Kind::Time, ValueRef::Integer(-1), None);
        check(Kind::Time, ValueRef::Integer(i64::MAX), None);
        check(Kind::Text, ValueRef::Text(b"\xff"), None);
        check(Kind::List, ValueRef::Text(b"[1]"), None);
        check(Kind::EventId, ValueRef::Blob(b"short"), None);
    }
}
