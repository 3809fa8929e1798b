//! The schemas that publishes are checked against, kept for a moment.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use webhooks_admin::{Admin, AdminError, Entry, EventTypeInfo, PayloadSchema, SchemaEnforcement};
use webhooks_core::Timestamp;
use webhooks_dispatch::clock::{Clock as _, MonotonicTime, SystemClock};

/// The time after which an event type is read again. A change by another process holds after it at the
/// latest, one by this process at once.
const FRESH: Duration = Duration::from_secs(1);

/// The most event types that are kept, known and unknown ones: publishers choose the names.
const MAX_KEPT: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// The check of an event type's payloads.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) enforcement: SchemaEnforcement,
    /// `None` if the schema cannot be used: another version of the program has stored it.
    pub(crate) schema: Option<PayloadSchema>,
    told_at: Mutex<Option<MonotonicTime>>,
}

/// The rules of event types, by name.
#[derive(Debug)]
pub(crate) struct SchemaCache(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    rules: LruCache<String, Known>,
    /// The number of times at which something was forgotten, so that a read before one is not kept after it.
    forgotten: u64,
}

#[derive(Debug, Clone)]
struct Known {
    /// `None` if nothing is checked.
    rule: Option<Arc<Rule>>,
    /// The version and the time of the last change of the event type that the rule is from.
    of: Option<(u64, Timestamp)>,
    /// `None` if it must be read again before it is used.
    read_at: Option<MonotonicTime>,
}

impl Default for SchemaCache {
    fn default() -> Self {
        Self(Mutex::new(Kept { rules: LruCache::new(MAX_KEPT), forgotten: 0 }))
    }
}

impl SchemaCache {
    /// Returns the rule of an event type; `None` if its payloads are not checked.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub(crate) async fn rule(
        &self,
        admin: &Admin,
        event_type: &str,
    ) -> Result<Option<Arc<Rule>>, AdminError> {
        let now = SystemClock.monotonic();
        let (old, forgotten) = {
            let mut kept = self.kept();
            let forgotten = kept.forgotten;
            match kept.rules.get_mut(event_type) {
                Some(Known { rule, read_at: Some(at), .. })
                    if now.saturating_since(*at) < FRESH =>
                {
                    return Ok(rule.clone());
                }
                // One reads it again, and the others use the old one meanwhile.
                Some(known) if known.read_at.is_some() => {
                    known.read_at = Some(now);
                    (Some(known.clone()), forgotten)
                }
                found => (found.cloned(), forgotten),
            }
        };
        let found = admin.event_types().look_up(event_type, Timestamp::now()).await?;
        let known = renew(old, found, Some(now)).await;
        let mut kept = self.kept();
        if kept.forgotten == forgotten {
            kept.rules.put(event_type.to_owned(), known.clone());
        }
        Ok(known.rule)
    }

    /// Forgets all rules, since an event type was changed.
    pub(crate) fn forget(&self) {
        let mut kept = self.kept();
        kept.forgotten += 1;
        // They are compared with what is read next, so none is made again without need.
        for (_, known) in &mut kept.rules {
            known.read_at = None;
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rule {
    /// Returns whether a mismatch is to be logged: once in a while, however many there are.
    pub(crate) fn tells(&self) -> bool {
        let now = SystemClock.monotonic();
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told_at.is_none_or(|at| now.saturating_since(at) >= FRESH);
        if is_due {
            *told_at = Some(now);
        }
        is_due
    }
}

/// Returns what is known of an event type after it was read.
async fn renew(
    old: Option<Known>,
    found: Option<Entry<EventTypeInfo>>,
    read_at: Option<MonotonicTime>,
) -> Known {
    let of = found.as_ref().map(|entry| (entry.version, entry.updated_at));
    if let Some(old) = old.filter(|old| old.of == of) {
        return Known { read_at, ..old };
    }
    let info = found.map(|entry| entry.value).unwrap_or_default();
    let is_checked = info.schema_enforcement != SchemaEnforcement::Off;
    let Some(schema) = info.newest_schema().filter(|_| is_checked).cloned() else {
        return Known { rule: None, of, read_at };
    };
    let made = tokio::task::spawn_blocking(move || PayloadSchema::new(&schema));
    let schema = match made.await {
        Ok(Ok(schema)) => Some(schema),
        Ok(Err(error)) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a schema cannot be used");
            None
        }
        Err(_panic) => None,
    };
    let rule = Rule { enforcement: info.schema_enforcement, schema, told_at: Mutex::default() };
    Known { rule: Some(Arc::new(rule)), of, read_at }
}
