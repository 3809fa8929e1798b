//! A writer that runs when it is told to, in its caller's thread: for the project's own simulation,
//! which decides what is committed together and when, and what fails.

use std::fmt;
use std::sync::atomic::Ordering;

use webhooks_dispatch::StoreError;

use crate::error::store_error;
use crate::open::prepare;
use crate::writer::Writer;
use crate::{OpenError, SqliteOptions, SqliteStore};

/// The writer of a store, to be told when it writes. The store ends when it is dropped, as by a
/// crash: what it has not carried out is lost.
pub struct ManualWriter {
    writer: Writer,
}

impl SqliteOptions {
    /// Opens the store without a thread, and without waiting for the disk; reads block their callers.
    /// Nothing is written before the writer is told so. Blocks while the file is opened.
    ///
    /// # Errors
    /// [`OpenError`] when the file cannot be used.
    pub fn dangerous_open_manually(self) -> Result<(SqliteStore, ManualWriter), OpenError> {
        let (store, mut writer) = prepare(self)?;
        store.inner.readers.is_inline.store(true, Ordering::Relaxed);
        let path = || store.inner.path.clone();
        let pragma = writer.connection.sqlite().pragma_update(None, "synchronous", "OFF");
        pragma.map_err(|source| OpenError::Sqlite { path: path(), source })?;
        writer.refill();
        Ok((store, ManualWriter { writer }))
    }
}

impl ManualWriter {
    /// Does what the thread would do next: commits a group of the commands that wait, or cancels some
    /// of what waits for endpoints that are gone. Returns whether there was anything to do.
    pub fn step(&mut self) -> bool {
        match self.writer.queue.try_recv() {
            Ok(first) => {
                self.writer.carry_out(first);
                true
            }
            Err(_empty) => self.writer.drain(),
        }
    }

    /// Returns whether there is anything to do.
    pub fn has_work(&self) -> bool {
        !self.writer.queue.is_empty() || self.writer.connection.is_draining()
    }

    /// Has so many of the next transactions fail when they are to be committed. A group whose
    /// transaction fails is carried out again, one by one.
    pub fn fail_commits(&mut self, transactions: u32) {
        self.writer.faults.commits = transactions;
    }

    /// Sets whether reading what waits into memory fails.
    pub fn fail_refills(&mut self, fail: bool) {
        self.writer.faults.refills = fail;
    }

    /// Lets the file grow by so many bytes from now on; without a limit if `None`.
    ///
    /// # Errors
    /// [`StoreError`] when the file cannot be read.
    pub fn limit(&mut self, more: Option<u64>) -> Result<(), StoreError> {
        self.writer.connection.limit_to(more).map_err(store_error)
    }

    /// Plants a bug that the simulation must find: groups go on behind the commands of this kind,
    /// which is a part of their type's name, such as `SetState`.
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
