//! A writer that runs in its caller's thread, step by step: for the project's own simulation, which
//! decides which commands are committed together and when, and which calls fail.

use std::fmt;
use std::sync::atomic::Ordering;

use webhooks_dispatch::store::StoreError;

use crate::error::store_error;
use crate::open::prepare;
use crate::writer::Writer;
use crate::{OpenError, SqliteOptions, SqliteStore};

/// The writer of a store, which writes only when it is told to. Dropping it ends the store as a crash
/// does: commands that it has not carried out are lost.
pub struct ManualWriter {
    writer: Writer,
}

impl SqliteOptions {
    /// Opens the store without a thread, and without waiting for the disk. Reads block their callers.
    /// Nothing is written before the writer is told to. Blocks while the file is opened.
    ///
    /// # Errors
    /// [`OpenError`] when the file cannot be used.
    pub fn dangerous_open_manually(self) -> Result<(SqliteStore, ManualWriter), OpenError> {
        let (store, mut writer) = prepare(self)?;
        store.inner.readers.is_inline.store(true, Ordering::Relaxed);
        let path = || store.inner.path.clone();
        let pragma = writer.connection.sqlite().pragma_update(None, "synchronous", "OFF");
        pragma.map_err(|source| OpenError::Sqlite { path: path(), source })?;
        while writer.refill() {}
        Ok((store, ManualWriter { writer }))
    }
}

impl ManualWriter {
    /// Does the next work of the thread: commits a group of the waiting commands, or cancels a batch of
    /// deliveries that wait for closed endpoints. Returns whether there was anything to do.
    pub fn step(&mut self) -> bool {
        match self.writer.queue.try_recv() {
            Ok(first) => {
                self.writer.carry_out(first);
                while self.writer.refill() {}
                true
            }
            Err(_empty) => self.writer.drain(),
        }
    }

    /// Returns whether there is anything to do.
    pub fn has_work(&self) -> bool {
        !self.writer.queue.is_empty() || self.writer.connection.is_draining()
    }

    /// Makes the commits of the next `transactions` fail. A group whose transaction fails is carried out
    /// again, one by one.
    pub fn fail_commits(&mut self, transactions: u32) {
        self.writer.faults.commits = transactions;
    }

    /// Sets whether refills of the backlog from disk fail.
    pub fn fail_refills(&mut self, fail: bool) {
        self.writer.faults.refills = fail;
    }

    /// Lets the file grow by `more` bytes from its present size; without limit if `None`.
    ///
    /// # Errors
    /// [`StoreError`] when the file cannot be read.
    pub fn limit(&mut self, more: Option<u64>) -> Result<(), StoreError> {
        self.writer.connection.limit_to(more).map_err(store_error)
    }

    /// Plants a bug that the simulation must find: groups go on behind commands of this kind. `kind` is
    /// a part of their type's name, such as `SetState`.
    pub fn go_on_behind(&mut self, kind: &'static str) {
        self.writer.is_last =
            Box::new(move |command| command.ends_group() && !command.kind().contains(kind));
    }
}

impl fmt::Debug for ManualWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualWriter").finish_non_exhaustive()
    }
}
