//! The limits of applications and the event types with retry schedules, as a process knows them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use webhooks_admin::Limits;
use webhooks_core::{EventType, TenantId};

/// The settings that differ from those of all.
#[derive(Debug, Default)]
pub(crate) struct Overrides(Mutex<Known>);

#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) limits: HashMap<TenantId, Limits>,
    /// The event types with schedules of their own.
    pub(crate) schedules: BTreeSet<EventType>,
    pub(crate) counts: HashMap<TenantId, Count>,
    /// The number of changes that requests to this process have made.
    pub(crate) changes: u64,
}

/// The messages of an application on a day, counted from 1970.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) day: u64,
    /// Those of all processes, as they were last read.
    pub(crate) stored: u64,
    /// Those that this process accepted and has not stored yet.
    pub(crate) fresh: u64,
    /// The places of those that this process is publishing.
    pub(crate) reserved: u64,
}

impl Count {
    /// Returns the number of all, as if those that are being published were accepted.
    pub(crate) fn all(&self) -> u64 {
        self.stored + self.fresh + self.reserved
    }
}

impl Overrides {
    /// Looks at what is known, or changes it.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
