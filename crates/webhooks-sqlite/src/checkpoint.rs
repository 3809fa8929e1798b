//! Emptying the write-ahead log.

use crate::command::WriteCommand;
use crate::connection::BUSY_TIMEOUT;
use crate::inner::SqliteInner;
use crate::write_connection::WriteConnection;

/// Empties the log, while nobody reads.
pub(crate) struct Checkpoint;

impl WriteCommand for Checkpoint {
    type Answer = ();

    fn write(&mut self, _: &mut WriteConnection, _: &SqliteInner) -> rusqlite::Result<()> {
        Ok(())
    }

    fn after_commit(self, connection: &mut WriteConnection, _: &SqliteInner) {
        // A checkpoint runs outside of a transaction, and none is open: this command ends its group.
        // It does not wait for a reader of another program, which would stop all writing meanwhile.
        // If it fails, the next read tries again.
        let connection = connection.sqlite();
        let busy = |millis: u32| connection.pragma_update(None, "busy_timeout", millis);
        let _again = busy(0)
            .and_then(|()| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(())));
        let _as_before = busy(BUSY_TIMEOUT);
    }
}
