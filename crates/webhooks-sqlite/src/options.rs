//! The options for opening a store.

use std::path::PathBuf;

use webhooks_dispatch::backlog::Window;
use webhooks_registry::seal::{SealingKey, SealingKeys};

/// The number of waiting deliveries of one endpoint that memory holds.
const PER_ENDPOINT: usize = 1_024;

/// The size of all waiting bodies that memory holds.
const WINDOW_BYTES: usize = 64 * 1024 * 1024;

/// The size of an event that is published in a transaction, unless set otherwise. An engine has the same.
const MAX_BODY: usize = 1024 * 1024;

/// The settings of a store to open.
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use webhooks_registry::seal::SealingKey;
/// use webhooks_sqlite::SqliteOptions;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("webhooks.db");
/// let key = SealingKey::from_hex(&"0f".repeat(32))?;
/// let store = SqliteOptions::new(path).sealing_keys([key]).open().await?;
/// store.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "options do nothing before `open`"]
pub struct SqliteOptions {
    pub(crate) path: PathBuf,
    pub(crate) keys: SealingKeys,
    pub(crate) needs_secrets: bool,
    pub(crate) window: Window,
    pub(crate) max_body: usize,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) reserves_log: bool,
}

impl SqliteOptions {
    /// Returns the options for a store in this file, which is made if it does not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let window = Window { per_endpoint: PER_ENDPOINT, bytes: WINDOW_BYTES };
        Self {
            path: path.into(),
            keys: SealingKeys::default(),
            needs_secrets: true,
            window,
            max_body: MAX_BODY,
            max_bytes: None,
            reserves_log: false,
        }
    }

    /// Encrypts the secrets of endpoints with the first of these keys. The others decrypt secrets that
    /// were encrypted with them before. Opening the store encrypts all secrets anew that the first
    /// key did not encrypt.
    pub fn sealing_keys(self, keys: impl IntoIterator<Item = SealingKey>) -> Self {
        Self { keys: SealingKeys::new(keys), ..self }
    }

    /// Opens the store also if none of its secrets can be decrypted: for a program that uses only the
    /// application's tables, and need not know the keys. It must neither publish nor deliver, since the
    /// endpoints of these secrets are inactive.
    pub fn without_secrets(self) -> Self {
        Self { needs_secrets: false, ..self }
    }

    /// Sets how much of the backlog memory holds. The default is 1,024 deliveries per endpoint, and
    /// 64 MiB of bodies in all.
    pub fn window(self, window: Window) -> Self {
        Self { window, ..self }
    }

    /// Sets the size in bytes that the body of an event may have in a
    /// [`transaction`](crate::SqliteStore::transaction). The default is 1 MiB.
    ///
    /// An engine uses [`EngineSettings::max_body`](webhooks_dispatch::EngineSettings::max_body) instead,
    /// for the events that it publishes.
    pub fn max_body(self, bytes: usize) -> Self {
        Self { max_body: bytes, ..self }
    }

    /// Sets the size that the file may have, in bytes. Without it, the disk is the limit. The log
    /// beside the file takes 64 MiB more.
    ///
    /// Publishing fails with [`StoreError::Full`](webhooks_dispatch::store::StoreError::Full) when an event
    /// and its deliveries would leave less than an eighth of it. That reserve serves accepted events:
    /// settling and cancelling, registering and replaying may use it. When less than a thirty-second
    /// is left, outcomes are recorded without their attempts.
    pub fn max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes: Some(max_bytes), ..self }
    }
    /// Fills the log beside the file with zeros when the store is opened: 16 MiB, which take some milliseconds
    /// and are given back when the store is closed.
    ///
    /// Commits are then as fast from the first one on as they are later, when they overwrite the log. Without
    /// it, the first 16 MiB are appended, which changes the size of a file with each commit. If the disk has
    /// no room, nothing is filled.
    pub fn reserve_log(self) -> Self {
        Self { reserves_log: true, ..self }
    }
}
