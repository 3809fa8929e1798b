//! Opening and closing a store: the file and its lock, the connection that writes, the endpoints, the
//! thread.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;

use crate::command::Wakeup;
use crate::inner::SqliteInner;
use crate::write_connection::WriteConnection;
use crate::writer::Writer;
use crate::{OpenError, SqliteOptions, SqliteStore, connection, file, jobs, load, reserved_log};

/// The number of commands that may wait for the writer. Callers of further ones wait for a place.
const QUEUE_CAPACITY: usize = 1_024;

impl SqliteStore {
    /// Opens the store in this file, and makes the file if it does not exist.
    ///
    /// # Errors
    /// [`OpenError`] when the file cannot be used. Its events, deliveries and endpoints are unchanged.
    ///
    /// # Cancellation
    /// If the future is dropped, the file may still be opened in the background, and is then freed again.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        SqliteOptions::new(path).open().await
    }

    /// Waits until all commands in the queue are carried out and the file is free for others. Other
    /// clones of this store, such as an engine's, are closed with it: from then on they can neither
    /// publish, claim, settle nor change anything.
    ///
    /// # Cancellation
    /// Once polled, the store closes even if the future is dropped.
    pub async fn close(self) {
        let Self { inner, commands } = self;
        inner.is_closing.store(true, Ordering::Release);
        // Wakes the writer. An error means that it has ended already.
        let _ended = commands.send(Box::new(Wakeup)).await;
        let thread = inner.thread().take();
        if let Some(thread) = thread {
            // A writer that panicked has freed the file, too.
            let _ended = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl SqliteOptions {
    /// Opens the store, and makes or migrates its schema.
    ///
    /// # Errors
    /// [`OpenError`] when the file cannot be used. Its events, deliveries and endpoints are unchanged.
    ///
    /// # Cancellation
    /// As for [`SqliteStore::open`].
    pub async fn open(self) -> Result<SqliteStore, OpenError> {
        let opened = tokio::task::spawn_blocking(move || open_blocking(self)).await;
        opened.unwrap_or_else(|panic| {
            let source = std::io::Error::other(panic);
            Err(OpenError::Thread { source })
        })
    }
}

fn open_blocking(options: SqliteOptions) -> Result<SqliteStore, OpenError> {
    let (store, writer) = prepare(options)?;
    let thread = std::thread::Builder::new().name("webhooks-sqlite".to_owned());
    let thread =
        thread.spawn(move || writer.run()).map_err(|source| OpenError::Thread { source })?;
    *store.inner.thread() = Some(thread);
    Ok(store)
}

/// Opens the file; returns the store, and its writer before that runs.
pub(crate) fn prepare(options: SqliteOptions) -> Result<(SqliteStore, Writer), OpenError> {
    let SqliteOptions { path, keys, needs_secrets, window, max_body, max_bytes, reserves_log } =
        options;
    let path = file::locate(&path)?;
    // The lock comes before SQLite opens the file: a second store must not even migrate it.
    let lock = file::lock(&path)?;
    let (mut connection, limit) = connection::open_for_writing(&path, max_bytes)?;
    let failed = |source| OpenError::Sqlite { path: path.clone(), source };
    if reserves_log {
        reserved_log::reserve(&mut connection, &path, connection::LOG_BYTES).map_err(failed)?;
    }
    let connection = WriteConnection::new(connection, limit, keys);
    let mut connection = connection.map_err(failed)?;
    let inner = Arc::new(SqliteInner::new(path, window, max_body));
    match load::endpoints(&mut connection, &inner) {
        Err(OpenError::Seal { .. }) if !needs_secrets => {}
        loaded => loaded?,
    }
    let failed = |source| OpenError::Sqlite { path: inner.path.clone(), source };
    jobs::load(connection.sqlite(), &inner).map_err(failed)?;
    connection::set_cache(connection.sqlite()).map_err(failed)?;
    let (commands, queue) = mpsc::channel(QUEUE_CAPACITY);
    let writer = Writer::new(connection, Arc::clone(&inner), queue, lock);
    Ok((SqliteStore { inner, commands }, writer))
}
