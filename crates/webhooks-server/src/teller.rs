//! The task of a service that tells operational endpoints what its engine does.
//!
//! The store has all of it before a hint comes here. If the process dies in between, its
//! watermark is left: the next process of the service, or another one, tells all that the store has since.

use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use webhooks_admin::{Entry, Watermark};
use webhooks_core::Timestamp;
use webhooks_dispatch::clock::{Clock as _, MonotonicTime, SystemClock};

use crate::catch_up::CatchUp;
use crate::hint::Hint;
use crate::operational_event::TellError;
use crate::service::{Service, WeakService};

/// The longest wait between two looks at whether something is missing.
const TICK: Duration = Duration::from_secs(1);

/// The hints that are told at once.
const BATCH: usize = 200;

/// How often the watermark is written, even if it does not move, and others are looked at.
const WATERMARK: Duration = Duration::from_secs(15);

/// The time after which a process whose watermark was not written counts as dead.
const DEAD_AFTER: Duration = Duration::from_secs(90);

/// The time by which a watermark lies back: for commits that take long, and for clocks of machines that
/// differ. Events within it are published again, and are the same events.
const LAG: Duration = Duration::from_secs(5 * 60);

/// The wait after something could not be told.
const PAUSE: Duration = Duration::from_secs(5);

/// The state of the task.
#[derive(Debug)]
struct Teller {
    /// All that happened before is told; `None` while nobody listens.
    told_until: Option<Timestamp>,
    /// When the watermark was last written.
    written_at: MonotonicTime,
    /// Whether the store has something that may not have been told, and that the present catch-up may not find.
    is_behind: bool,
    /// The catch-up under way.
    present: Option<Present>,
    /// The time before which it does not try again.
    pause_until: MonotonicTime,
}

/// A catch-up under way, and what follows from its end.
#[derive(Debug)]
struct Present {
    catch_up: CatchUp,
    /// All that happened some time before this is told at the end.
    begun: Timestamp,
    /// The watermarks of dead processes that are not needed from the end on.
    dead: Vec<Entry<Watermark>>,
}

impl Service {
    /// Starts the task, unless it runs. It ends when the service is dropped.
    pub(crate) fn start_telling(&self) {
        let Some(mut hints) = self.metrics().hints().take() else { return };
        let service = self.downgrade();
        let mut teller = Teller {
            told_until: None,
            written_at: MonotonicTime::default(),
            is_behind: false,
            present: None,
            pause_until: MonotonicTime::default(),
        };
        tokio::spawn(async move { while teller.step(&service, &mut hints).await {} });
    }
}

impl Teller {
    /// Waits for hints, or a tick, and tells; returns whether the service goes on.
    async fn step(&mut self, service: &WeakService, hints: &mut Receiver<Hint>) -> bool {
        let mut arrived = Vec::with_capacity(BATCH);
        if self.present.is_some() && SystemClock.monotonic() >= self.pause_until {
            // Hints come first: those for which there is no room would need another catch-up.
            while arrived.len() < BATCH
                && let Ok(hint) = hints.try_recv()
            {
                arrived.push(hint);
            }
        } else {
            tokio::select! {
                _number = hints.recv_many(&mut arrived, BATCH) => {}
                () = SystemClock.sleep(TICK) => {}
            }
        }
        let Some(service) = service.upgrade() else { return false };
        self.is_behind |= service.metrics().hints().take_missing();
        if SystemClock.monotonic() < self.pause_until {
            // The store has what these are at.
            self.is_behind |= !arrived.is_empty();
            return true;
        }
        let is_all = hints.is_empty();
        if let Err(error) = self.tell(&service, arrived, is_all).await {
            self.is_behind = true;
            self.pause_until = SystemClock.monotonic() + PAUSE;
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "operational endpoints are told later");
        }
        true
    }

    /// Tells what has arrived, and makes a step of the catch-up. `is_all` says whether nothing else had.
    async fn tell(
        &mut self,
        service: &Service,
        arrived: Vec<Hint>,
        is_all: bool,
    ) -> Result<(), TellError> {
        let now = Service::now();
        if !service.is_listened_to().await? {
            if self.told_until.take().is_some() {
                service.admin().delete_watermark(service.process(), now).await?;
            }
            (self.is_behind, self.present) = (false, None);
            return Ok(());
        }
        let told_until = match self.told_until {
            Some(told_until) => told_until,
            None => self.begin(service, now).await?,
        };
        service.tell(arrived).await?;
        if self.is_behind && self.present.is_none() {
            self.catch_up(service, (told_until, now), Vec::new()).await?;
            self.is_behind = false;
        }
        self.go_on(service).await?;
        let now = SystemClock.clocks();
        if now.monotonic.saturating_since(self.written_at) >= WATERMARK {
            // The rest is found after the present catch-up.
            if self.present.is_none() {
                self.adopt(service).await?;
            }
            // Something that was missed since is told from the place where the watermark is now.
            let is_told = is_all && !self.is_behind && self.present.is_none();
            let until = is_told.then(|| now.wall.saturating_sub(LAG));
            // It says that this process lives, too.
            self.write(service, until).await?;
        }
        Ok(())
    }

    /// Begins a catch-up since a time, now.
    async fn catch_up(
        &mut self,
        service: &Service,
        (since, now): (Timestamp, Timestamp),
        dead: Vec<Entry<Watermark>>,
    ) -> Result<(), TellError> {
        let catch_up = service.begin_catch_up(since).await?;
        self.present = Some(Present { catch_up, begun: now, dead });
        Ok(())
    }

    /// Makes the next step of the catch-up, if there is one.
    async fn go_on(&mut self, service: &Service) -> Result<(), TellError> {
        let is_over = match &mut self.present {
            Some(present) => service.go_on(&mut present.catch_up).await?,
            None => false,
        };
        if is_over && let Some(Present { begun, dead, .. }) = self.present.take() {
            // Not further: more may have been missed meanwhile.
            self.told_until = self.told_until.max(Some(begun.saturating_sub(LAG)));
            for watermark in dead {
                // It stays if the process lives, and has moved it.
                service.admin().delete_dead_watermark(&watermark, Service::now()).await?;
            }
        }
        Ok(())
    }

    /// Takes over what other processes, this one's earlier lives among them, may not have told.
    async fn begin(&mut self, service: &Service, now: Timestamp) -> Result<Timestamp, TellError> {
        let found = service.admin().watermarks(now).await?;
        let first = found.iter().map(|entry| entry.value.told_until).min();
        // Its own is there before anything is told.
        service.admin().move_watermark(service.process(), first.unwrap_or(now), now).await?;
        // Hints of all that this process did since it began are here, or were missed.
        self.is_behind |= found.iter().any(|entry| entry.id != service.process());
        self.told_until = Some(first.unwrap_or(now));
        Ok(first.unwrap_or(now))
    }

    /// Writes the watermark: at this time if that is later, and otherwise where it is.
    async fn write(
        &mut self,
        service: &Service,
        until: Option<Timestamp>,
    ) -> Result<(), TellError> {
        let Some(told_until) = self.told_until.max(until) else { return Ok(()) };
        let process = service.process();
        service.admin().move_watermark(process, told_until, Service::now()).await?;
        self.told_until = Some(told_until);
        self.written_at = SystemClock.monotonic();
        Ok(())
    }

    /// Begins to tell what processes have left that are dead.
    async fn adopt(&mut self, service: &Service) -> Result<(), TellError> {
        let now = Service::now();
        let is_dead = |entry: &Entry<Watermark>| {
            let is_silent = now.saturating_since(entry.updated_at) > DEAD_AFTER;
            is_silent && entry.id != service.process()
        };
        let found = service.admin().watermarks(now).await?;
        let dead: Vec<Entry<Watermark>> = found.into_iter().filter(is_dead).collect();
        let Some(first) = dead.iter().map(|entry| entry.value.told_until).min() else {
            return Ok(());
        };
        // It tells what this process has missed, too: its own watermark moves at the end.
        let since = self.told_until.map_or(first, |told_until| told_until.min(first));
        self.catch_up(service, (since, now), dead).await?;
        self.is_behind = false;
        Ok(())
    }
}
