//! The state that the store's callers and its writer share.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use webhooks_dispatch::backlog::{Backlog, Window};
use webhooks_dispatch::monitor::DurationHistogram;
use webhooks_dispatch::observer::WorkerReport;
use webhooks_dispatch::store::{ChangeNotifier, StoreError};
use webhooks_registry::{EndpointKey, Registration, Registry, store::EndpointStoreError};

use crate::deferred_errors::DeferredErrors;
use crate::error::{Closed, Panicked, UnreadableEndpoint, unavailable};
use crate::job_leases::JobLeases;
use crate::readers::Readers;

/// The inside of a store, behind an `Arc`.
///
/// `registry`, `backlog` and `unreadable` follow the file, which is the source of truth: endpoints
/// change, and deliveries come and go, only after the commit that stored the change, in the writer's
/// thread.
/// Claims are not stored, so callers claim and extend in `backlog` by themselves.
///
/// Locks: an error may be added to `deferred_errors` while `backlog` is locked. No other two of
/// these locks are taken at once.
pub(crate) struct SqliteInner {
    pub(crate) path: PathBuf,
    pub(crate) registry: Registry,
    /// The size in bytes that an event in a transaction may have.
    pub(crate) max_body: usize,
    backlog: Mutex<Backlog>,
    pub(crate) notifier: ChangeNotifier,
    pub(crate) deferred_errors: DeferredErrors,
    unreadable: Mutex<HashMap<EndpointKey, Unreadable>>,
    jobs: Mutex<JobLeases>,
    reports: Mutex<BTreeMap<u64, WorkerReport>>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) writes: Writes,
    /// The writer's thread, until somebody closes the store.
    thread: Mutex<Option<JoinHandle<()>>>,
    pub(crate) is_closing: AtomicBool,
    /// Set once the writer has ended, and with it the lock on the file.
    pub(crate) ended: OnceLock<WriterEnd>,
}

/// Counts of the writer's work.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    pub(crate) commits: DurationHistogram,
    /// The calls that were committed.
    pub(crate) calls: AtomicU64,
    pub(crate) is_writing: AtomicBool,
}

/// How the writer has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WriterEnd {
    Closed,
    Panicked,
}

/// An endpoint whose row cannot be read. It gets nothing until it is registered anew, or the store
/// is opened with the right key.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// The endpoint as far as it is known, with a secret that signs nothing.
    pub(crate) known: Arc<Registration>,
    pub(crate) why: String,
}

impl SqliteInner {
    pub(crate) fn new(path: PathBuf, window: Window, max_body: usize) -> Self {
        Self {
            readers: Arc::new(Readers::new(&path)),
            writes: Writes::default(),
            path,
            registry: Registry::new(),
            max_body,
            backlog: Mutex::new(Backlog::new(window)),
            notifier: ChangeNotifier::new(),
            deferred_errors: DeferredErrors::default(),
            unreadable: Mutex::default(),
            jobs: Mutex::default(),
            reports: Mutex::default(),
            thread: Mutex::default(),
            is_closing: AtomicBool::new(false),
            ended: OnceLock::new(),
        }
    }

    // A panic cannot leave it half changed in a way that matters: the file is the source of truth.
    pub(crate) fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails once the writer has ended. From then on another process may own the file, and memory no
    /// longer follows it.
    pub(crate) fn check_open(&self) -> Result<(), StoreError> {
        match self.ended.get() {
            None => Ok(()),
            Some(WriterEnd::Closed) => Err(unavailable(Closed)),
            Some(WriterEnd::Panicked) => Err(unavailable(Panicked)),
        }
    }

    /// Returns the endpoints whose rows could not be read when the store was opened.
    pub(crate) fn unreadable(&self) -> MutexGuard<'_, HashMap<EndpointKey, Unreadable>> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the jobs that run, and the leases on them.
    pub(crate) fn jobs(&self) -> MutexGuard<'_, JobLeases> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the last reports of the workers. All are in this process, so they need not be stored.
    pub(crate) fn reports(&self) -> MutexGuard<'_, BTreeMap<u64, WorkerReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns why an endpoint's row could not be read, if it could not.
    pub(crate) fn unreadable_error(&self, key: &EndpointKey) -> Option<EndpointStoreError> {
        let why = self.unreadable().get(key)?.why.clone();
        let source = UnreadableEndpoint { endpoint: key.id.to_string(), why }.into();
        Some(EndpointStoreError::Unavailable { source })
    }
}
