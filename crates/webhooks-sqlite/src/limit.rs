//! The limit on the file's size, and what is kept back of it for what was accepted.

use rusqlite::Connection;

use crate::row;

/// Publishing leaves this part of the file to others: an eighth.
const RESERVE: i64 = 8;

/// Attempts leave this part of the file to outcomes: a thirty-second.
const LAST: i64 = 32;

/// How large the file may become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pages: i64,
    page: i64,
}

/// How many bytes may still be added; negative if there are too many already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) events: i64,
    pub(crate) attempts: i64,
}

impl Limit {
    /// Limits the file; one that is larger already may keep its size.
    pub(crate) fn set(connection: &Connection, max_bytes: u64) -> rusqlite::Result<Self> {
        let page: i64 = connection.query_row("PRAGMA page_size", (), |row| row.get(0))?;
        let page = page.max(1);
        let wanted = (row::integer(max_bytes) / page).max(1);
        let limit = format!("PRAGMA max_page_count = {wanted}");
        let pages = connection.query_row(&limit, (), |row| row.get(0))?;
        Ok(Self { pages, page })
    }

    pub(crate) fn room(self, used: i64) -> Room {
        let below =
            |reserve: i64| (self.pages - self.pages / reserve - used).saturating_mul(self.page);
        Room { events: below(RESERVE), attempts: below(LAST) }
    }
}

/// Returns about how many bytes a row takes with its index entries. A row of more than a quarter of
/// a page has pages of its own, the last of which is half empty.
pub(crate) fn size(bytes: usize) -> i64 {
    const ROW: i64 = 256;
    const LONG: i64 = 1_000;
    const HALF_PAGE: i64 = 2_048;
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX / 2);
    bytes.saturating_add(if bytes > LONG { ROW + HALF_PAGE } else { ROW })
}
