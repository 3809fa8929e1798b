//! The options for opening a store.

use std::path::PathBuf;

use webhooks_dispatch::backlog::Window;
use webhooks_registry::{SealingKey, SealingKeys};

/// How many deliveries of one endpoint are held in memory, of those that wait.
const PER_ENDPOINT: usize = 1_024;

/// How many bytes of bodies that wait are held in memory.
const WINDOW_BYTES: usize = 64 * 1024 * 1024;

/// How to open a store.
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use webhooks_registry::SealingKey;
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
    pub(crate) window: Window,
    pub(crate) max_bytes: Option<u64>,
}

impl SqliteOptions {
    /// Returns the options for a store in this file, which is made if it does not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let window = Window { per_endpoint: PER_ENDPOINT, bytes: WINDOW_BYTES };
        Self { path: path.into(), keys: SealingKeys::default(), window, max_bytes: None }
    }

    /// Encrypts the secrets of endpoints by the first of these keys; the others open what was
    /// encrypted by them before. Secrets that are not encrypted by the first key yet are, when the
    /// store is opened.
    pub fn sealing_keys(self, keys: impl IntoIterator<Item = SealingKey>) -> Self {
        Self { keys: SealingKeys::new(keys), ..self }
    }

    /// Sets how much of what waits is held in memory: 1,024 deliveries of an endpoint and 64 MiB of
    /// bodies unless set.
    pub fn window(self, window: Window) -> Self {
        Self { window, ..self }
    }

    /// Sets how large the file may become, in bytes; as large as the disk allows unless set. The log
    /// beside it takes 64 MiB more.
    ///
    /// Publishing fails with [`StoreError::Full`](webhooks_dispatch::StoreError::Full) when an event
    /// and its deliveries would leave less than an eighth of it. That reserve is for what was
    /// accepted: settling and cancelling, registering and replaying may use it. When less than a
    /// thirty-second is left, outcomes are kept without their attempts.
    pub fn max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes: Some(max_bytes), ..self }
    }
}
