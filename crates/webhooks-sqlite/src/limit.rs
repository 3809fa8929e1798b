//! The limit on the file's size, and its reserves for accepted events.

use rusqlite::Connection;

use crate::row;

/// The part of the file that publishing leaves to all others: an eighth.
const EVENT_RESERVE: i64 = 8;

/// The part of the file that attempts leave to outcomes: a thirty-second. Without their attempts,
/// outcomes change rows in place and need next to no room.
const ATTEMPT_RESERVE: i64 = 32;

/// The part of the file that figures leave to outcomes: a sixty-fourth.
const FIGURE_RESERVE: i64 = 64;

/// The size that the file may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pages: i64,
    /// The size of a page in bytes.
    page: i64,
}

/// The number of bytes that may still be added; negative if there are too many already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// By publishing.
    pub(crate) events: i64,
    /// By recording attempts.
    pub(crate) attempts: i64,
    /// By recording figures.
    pub(crate) figures: i64,
}

impl Limit {
    /// Limits the file; a file that is larger already may keep its size.
    pub(crate) fn set(connection: &Connection, max_bytes: u64) -> rusqlite::Result<Self> {
        let page: i64 = connection.query_row("PRAGMA page_size", (), |row| row.get(0))?;
        let page = page.max(1);
        let wanted = (row::integer(max_bytes) / page).max(1);
        let limit = format!("PRAGMA max_page_count = {wanted}");
        // SQLite answers with the limit in force, which is never below the present size.
        let pages = connection.query_row(&limit, (), |row| row.get(0))?;
        Ok(Self { pages, page })
    }

    /// Returns the room that is left when `used` pages are in use.
    pub(crate) fn room(self, used: i64) -> Room {
        let below =
            |reserve: i64| (self.pages - self.pages / reserve - used).saturating_mul(self.page);
        Room {
            events: below(EVENT_RESERVE),
            attempts: below(ATTEMPT_RESERVE),
            figures: below(FIGURE_RESERVE),
        }
    }
}

/// Estimates the size of a row with its index entries, in bytes. A row of more than a quarter of a
/// page has pages of its own, the last of which is half empty.
pub(crate) fn size(bytes: usize) -> i64 {
    const ROW: i64 = 256;
    const LONG: i64 = 1_000;
    const HALF_PAGE: i64 = 2_048;
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX / 2);
    bytes.saturating_add(if bytes > LONG { ROW + HALF_PAGE } else { ROW })
}
