//! The one thread that writes: it takes all commands that wait, and commits them at once.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::oneshot;
use webhooks_dispatch::StoreError;

use crate::error::store_error;
use crate::store::Shared;
use crate::tables::Tables;

/// How many commands are committed together at most.
const MAX_GROUP: usize = 256;

/// How many lanes are refilled at a time.
const REFILLS: usize = 32;

/// A command, before it is known what it answers.
pub(crate) type Job = Box<dyn AnyCommand>;

/// What the writer does for somebody.
pub(crate) trait Write: Send + 'static {
    /// What the caller gets.
    type Answer: Send + 'static;

    /// Writes within a transaction. It may be called again if that was rolled back.
    fn write(&mut self, tables: &mut Tables, shared: &Shared) -> rusqlite::Result<()>;

    /// Follows in memory, once it is committed, and returns the answer.
    fn finish(self, tables: &mut Tables, shared: &Shared) -> Self::Answer;

    /// Undoes in memory what [`write`](Self::write) did there: it could not be committed.
    fn give_up(&mut self, _shared: &Shared) {}
}

/// The same with its types hidden, and with whoever waits for the answer.
pub(crate) trait AnyCommand: Send {
    fn write(&mut self, tables: &mut Tables, shared: &Shared) -> rusqlite::Result<()>;
    fn finish(self: Box<Self>, tables: &mut Tables, shared: &Shared);
    fn give_up(self: Box<Self>, shared: &Shared, error: StoreError);
}

pub(crate) struct Command<W: Write> {
    write: W,
    reply: oneshot::Sender<Result<W::Answer, StoreError>>,
}

impl<W: Write> Command<W> {
    pub(crate) fn new(write: W, reply: oneshot::Sender<Result<W::Answer, StoreError>>) -> Self {
        Self { write, reply }
    }
}

impl<W: Write> AnyCommand for Command<W> {
    fn write(&mut self, tables: &mut Tables, shared: &Shared) -> rusqlite::Result<()> {
        self.write.write(tables, shared)
    }

    fn finish(self: Box<Self>, tables: &mut Tables, shared: &Shared) {
        let Self { write, reply } = *self;
        // Whoever stopped waiting does not want the answer.
        let _unheard = reply.send(Ok(write.finish(tables, shared)));
    }

    fn give_up(mut self: Box<Self>, shared: &Shared, error: StoreError) {
        self.write.give_up(shared);
        let _unheard = self.reply.send(Err(error));
    }
}

/// Makes the writer look at what runs low in memory.
pub(crate) struct Nudge;

impl AnyCommand for Nudge {
    fn write(&mut self, _: &mut Tables, _: &Shared) -> rusqlite::Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>, _: &mut Tables, _: &Shared) {}

    fn give_up(self: Box<Self>, _: &Shared, _: StoreError) {}
}

pub(crate) struct Writer {
    tables: Tables,
    shared: Arc<Shared>,
    queue: Receiver<Job>,
    _lock: File,
}

impl Writer {
    pub(crate) fn new(
        tables: Tables,
        shared: Arc<Shared>,
        queue: Receiver<Job>,
        lock: File,
    ) -> Self {
        Self { tables, shared, queue, _lock: lock }
    }

    /// Writes until the last caller is gone, or the store is closed.
    pub(crate) fn run(mut self) {
        self.refill();
        let mut group = Vec::with_capacity(MAX_GROUP);
        loop {
            let first = match self.queue.try_recv() {
                Ok(job) => Some(job),
                Err(TryRecvError::Disconnected) => None,
                // What is left to cancel is done bit by bit, whenever nobody waits; if that fails,
                // again after the next command, and the rest when the store is opened again.
                Err(TryRecvError::Empty) if self.drain() => continue,
                Err(TryRecvError::Empty) => self.queue.blocking_recv(),
            };
            let Some(first) = first else { return };
            group.push(first);
            while group.len() < MAX_GROUP
                && let Ok(job) = self.queue.try_recv()
            {
                group.push(job);
            }
            self.commit(&mut group);
            self.refill();
            if self.shared.is_closing.load(Ordering::Acquire) {
                // What waits is still carried out.
                self.queue.close();
            }
        }
    }

    /// Commits a group at once; if that fails, each of it alone, so that one bad command does no
    /// harm to others.
    fn commit(&mut self, group: &mut Vec<Job>) {
        match (self.transact(group), group.len()) {
            (Ok(()), _) => group.drain(..).for_each(|job| self.answer(job, Ok(()))),
            (Err(error), 1) => {
                if let Some(job) = group.pop() {
                    self.answer(job, Err(error));
                }
            }
            (Err(_), _) => {
                for mut job in group.drain(..) {
                    let outcome = self.transact(std::slice::from_mut(&mut job));
                    self.answer(job, outcome);
                }
            }
        }
        self.shared.waker.wake();
    }

    fn transact(&mut self, group: &mut [Job]) -> rusqlite::Result<()> {
        self.tables.begin()?;
        let (tables, shared) = (&mut self.tables, &*self.shared);
        // A panic here is a bug; it costs the command and not the store.
        let written = catch_unwind(AssertUnwindSafe(|| {
            group.iter_mut().try_for_each(|job| job.write(tables, shared))
        }));
        let written = written.unwrap_or(Err(rusqlite::Error::InvalidQuery));
        let outcome = written.and_then(|()| self.tables.commit());
        if outcome.is_err() {
            self.tables.roll_back();
        }
        outcome
    }

    fn answer(&mut self, job: Job, outcome: rusqlite::Result<()>) {
        match outcome {
            Ok(()) => job.finish(&mut self.tables, &self.shared),
            Err(error) => job.give_up(&self.shared, store_error(error)),
        }
    }

    /// Reads into memory what runs low there.
    fn refill(&mut self) {
        loop {
            let refills = self.shared.backlog().refills(REFILLS);
            if refills.is_empty() {
                return;
            }
            for refill in refills {
                // What cannot be read now is asked for again.
                let found = self.tables.waiting(&refill);
                let mut backlog = self.shared.backlog();
                match found {
                    Ok(found) => backlog.refill(&refill, found),
                    Err(_) => return backlog.retry_refill(&refill),
                }
            }
            self.shared.waker.wake();
        }
    }

    /// Cancels some of what waits for endpoints that are gone; returns whether there is more.
    fn drain(&mut self) -> bool {
        self.tables.drain().unwrap_or_else(|_again_later| {
            self.tables.roll_back();
            false
        })
    }
}
