//! The store: its ports, each a command to the writer, a look into memory, or a read.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use webhooks_core::{DeliveryId, EndpointId, TenantId, Timestamp};
use webhooks_dispatch::backlog::Backlog;
use webhooks_dispatch::{
    Conflict, OperationError, Published,
    clock::Now,
    store::{
        ChangeListener, ChangeNotifier, Claim, ClaimRequest, Claimed, DeliveryStore, ReplayRequest,
        Replayed, SerializedEvent, Settled, Settlement, StoreError,
    },
};
use webhooks_registry::{
    Endpoint, EndpointKey, EndpointNumber, Registration, Registry,
    store::{EndpointStore, EndpointStoreError, Registered, StateChange},
};

use crate::OpenError;
use crate::endpoints::{Register, SetState, Unregister};
use crate::error::{Closed, Panicked, UnreadableEndpoint};
use crate::load::Unreadable;
use crate::open::{SqliteOptions, locate, lock, writing};
use crate::operations::{Cancel, Hasten};
use crate::publish::Publish;
use crate::readers::{EmptyLog, Readers};
use crate::replay::Replaying;
use crate::settle::Settle;
use crate::tables::Tables;
use crate::troubles::Troubles;
use crate::writer::{Command, Job, Write, Writer};

/// How many commands may wait for the writer; more wait with their callers.
const QUEUE: usize = 1_024;

/// Keeps endpoints, events and deliveries in one SQLite file of this process.
///
/// One thread writes, and commits everything that waits for it at once; whatever was answered is
/// on disk. Cheap to clone; all clones are one store. It ends, and frees its file, when the last
/// clone is dropped or by [`close`](Self::close).
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use webhooks_dispatch::{Engine, FnTransport};
/// use webhooks_sqlite::SqliteStore;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("webhooks.db");
/// let store = SqliteStore::open(path).await?;
/// let engine = Engine::new(store, FnTransport::new(|_, _, _, _| async { (200, "") }));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteStore {
    pub(crate) shared: Arc<Shared>,
    commands: mpsc::Sender<Job>,
}

/// What the store's callers and its writer share.
pub(crate) struct Shared {
    pub(crate) path: PathBuf,
    pub(crate) registry: Registry,
    backlog: Mutex<Backlog>,
    pub(crate) notifier: ChangeNotifier,
    pub(crate) troubles: Troubles,
    unreadable: Mutex<HashMap<EndpointKey, Unreadable>>,
    pub(crate) readers: Arc<Readers>,
    thread: Mutex<Option<JoinHandle<()>>>,
    pub(crate) is_closing: AtomicBool,
    /// Set once the writer has ended, and with it the lock on the file: how it did.
    pub(crate) ended: OnceLock<WriterEnd>,
}

/// How the writer has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WriterEnd {
    Closed,
    Panicked,
}

impl Shared {
    // A panic cannot leave it half changed in a way that matters: the disk has the truth.
    pub(crate) fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails once the writer has ended: from then on the file may be another process's, and memory
    /// no longer what is on disk.
    fn check_open(&self) -> Result<(), StoreError> {
        match self.ended.get() {
            None => Ok(()),
            Some(WriterEnd::Closed) => Err(unavailable(Closed)),
            Some(WriterEnd::Panicked) => Err(unavailable(Panicked)),
        }
    }

    /// The endpoints whose rows could not be read when the store was opened.
    pub(crate) fn unreadable(&self) -> MutexGuard<'_, HashMap<EndpointKey, Unreadable>> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says why an endpoint's row could not be read, if that is so.
    pub(crate) fn unreadable_error(&self, key: &EndpointKey) -> Option<EndpointStoreError> {
        let why = self.unreadable().get(key)?.why.clone();
        let source = UnreadableEndpoint { endpoint: key.id.to_string(), why }.into();
        Some(EndpointStoreError::Unavailable { source })
    }
}

impl SqliteStore {
    /// Opens the store in this file, which is made if it does not exist.
    ///
    /// # Errors
    /// [`OpenError`] when the file cannot be used; it is then as it was.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        SqliteOptions::new(path).open().await
    }

    pub(crate) fn open_blocking(options: SqliteOptions) -> Result<Self, OpenError> {
        let (store, writer) = Self::prepare(options)?;
        let thread = std::thread::Builder::new().name("webhooks-sqlite".to_owned());
        let thread =
            thread.spawn(move || writer.run()).map_err(|source| OpenError::Thread { source })?;
        *store.shared.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(store)
    }

    /// Opens the file; returns the store, and its writer before that runs.
    pub(crate) fn prepare(options: SqliteOptions) -> Result<(Self, Writer), OpenError> {
        let SqliteOptions { path, keys, window, max_bytes } = options;
        let path = locate(&path)?;
        let lock = lock(&path)?;
        let (connection, limit) = writing(&path, max_bytes)?;
        let shared = Arc::new(Shared {
            readers: Arc::new(Readers::new(&path)),
            path,
            registry: Registry::new(),
            backlog: Mutex::new(Backlog::new(window)),
            notifier: ChangeNotifier::new(),
            troubles: Troubles::default(),
            unreadable: Mutex::default(),
            thread: Mutex::default(),
            is_closing: AtomicBool::new(false),
            ended: OnceLock::new(),
        });
        let tables = Tables::load(connection, limit, keys, &shared)?;
        let (commands, queue) = mpsc::channel(QUEUE);
        let writer = Writer::new(tables, Arc::clone(&shared), queue, lock);
        Ok((Self { shared, commands }, writer))
    }

    /// Waits until everything is written and the file is free for others. Other clones of this
    /// store, such as an engine's, are closed with it: their calls fail from then on.
    pub async fn close(self) {
        let Self { shared, commands } = self;
        shared.is_closing.store(true, Ordering::Release);
        // Wakes the writer; one that has ended needs no waking.
        let _ended = commands.send(Box::new(crate::writer::Nudge)).await;
        let thread = shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A writer that panicked has freed the file too.
            let _ended = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    #[cfg(test)]
    pub(crate) fn troubles(&self) -> &Troubles {
        &self.shared.troubles
    }

    #[cfg(test)]
    pub(crate) fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.shared.backlog()
    }

    /// Has the writer carry out a command, and returns its answer.
    pub(crate) async fn write<W: Write>(&self, write: W) -> Result<W::Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(Command::new(write, reply));
        if self.commands.send(job).await.is_err() {
            self.shared.check_open()?;
            // It takes no more, and is about to end.
            return Err(unavailable(Closed));
        }
        // It carries out all that it took, whatever happens, unless it panics.
        answer.await.map_err(|_gone| unavailable(Panicked))?
    }

    /// Reads on a connection of its own. A read that takes longer than 30 s fails; one whose caller is
    /// gone ends.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = &self.shared.readers;
        if let Some(_alone) = readers.silence().await? {
            self.write(EmptyLog).await?;
        }
        let turn = readers.turn().await?;
        Arc::clone(readers).read(turn, read).await
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl DeliveryStore for SqliteStore {
    async fn publish(
        &self,
        events: Vec<SerializedEvent>,
        now: Timestamp,
    ) -> Result<Vec<Result<Published, Conflict>>, StoreError> {
        self.write(Publish::new(events, now)).await?
    }

    /// Claims from memory: one process owns the file, so claims need not outlive it.
    ///
    /// A claim that finds nothing tells what went wrong since in the writer's own work, one error a
    /// call: a delivery that cannot be read and is passed over, or a backlog that cannot be read
    /// now.
    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        self.shared.check_open()?;
        let mut backlog = self.shared.backlog();
        let claimed = backlog.claim(&request);
        let is_low = backlog.is_low();
        drop(backlog);
        if is_low {
            // A writer whose queue is full looks by itself when it has done what waits.
            let nudge: Job = Box::new(crate::writer::Nudge);
            let _full = self.commands.try_send(nudge);
        }
        let trouble = if claimed.is_empty() { self.shared.troubles.take() } else { None };
        trouble.map_or(Ok(claimed), Err)
    }

    async fn settle(
        &self,
        settlements: Vec<Settlement>,
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        self.write(Settle::new(settlements, now)).await
    }

    async fn extend(
        &self,
        claims: Vec<Claim>,
        lease: Duration,
        now: Now,
    ) -> Result<Vec<Claim>, StoreError> {
        self.shared.check_open()?;
        let until = now.monotonic + lease;
        let mut backlog = self.shared.backlog();
        Ok(claims.into_iter().filter(|claim| !backlog.extend(*claim, until)).collect())
    }

    async fn next_due(
        &self,
        busy: Arc<BTreeSet<EndpointNumber>>,
        now: Now,
    ) -> Result<Option<Duration>, StoreError> {
        self.shared.check_open()?;
        Ok(self.shared.backlog().next_due(&busy, now))
    }

    async fn hasten(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut next = Some((None, None));
        while let Some(from) = next {
            next = self.write(Hasten::new(now, from)).await?;
        }
        Ok(())
    }

    async fn cancel(&self, delivery: DeliveryId, _now: Timestamp) -> Result<(), OperationError> {
        self.write(Cancel::new(delivery)).await?
    }

    async fn replay(&self, request: ReplayRequest) -> Result<Replayed, OperationError> {
        self.write(Replaying::new(request)).await?
    }

    fn changes(&self) -> ChangeListener {
        self.shared.notifier.listen()
    }
}

impl EndpointStore for SqliteStore {
    async fn register(
        &self,
        id: EndpointId,
        endpoint: Endpoint,
    ) -> Result<Registered, EndpointStoreError> {
        let registration = Registration::new(EndpointNumber::default(), id, endpoint);
        self.write(Register::new(registration)).await.map_err(of_endpoints)?
    }

    async fn unregister(&self, key: EndpointKey) -> Result<Arc<Registration>, EndpointStoreError> {
        self.write(Unregister::new(key)).await.map_err(of_endpoints)?
    }

    async fn set_state(
        &self,
        key: EndpointKey,
        change: StateChange,
    ) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        self.write(SetState::new(key, change)).await.map_err(of_endpoints)?
    }

    /// Fails for an endpoint whose row could not be read when the store was opened, and says why.
    async fn get(&self, key: EndpointKey) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        match self.shared.unreadable_error(&key) {
            Some(error) => Err(error),
            None => Ok(self.shared.registry.get_of(&key)),
        }
    }

    async fn list(
        &self,
        tenant: Option<TenantId>,
        after: Option<EndpointKey>,
        limit: usize,
    ) -> Result<Vec<Arc<Registration>>, EndpointStoreError> {
        Ok(self.shared.registry.page(tenant.as_ref(), after.as_ref(), limit))
    }
}

fn unavailable(source: impl Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unavailable { source: source.into() }
}

fn of_endpoints(error: StoreError) -> EndpointStoreError {
    EndpointStoreError::Unavailable { source: error.into() }
}
