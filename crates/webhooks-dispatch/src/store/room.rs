//! The room that a worker has for more deliveries, by endpoint.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use webhooks_registry::EndpointNumber;

/// The number of changes that a room remembers. A reader that is further behind reads it whole.
const MAX_CHANGES: usize = 4_096;

/// The number of rooms that were made in this process.
static MADE: AtomicU64 = AtomicU64::new(0);

/// The room that a worker has for deliveries of single endpoints, where it is less than
/// [`ClaimRequest::per_endpoint`](super::ClaimRequest::per_endpoint). An endpoint without room is
/// *busy*: the worker has enough for it, or it must wait.
///
/// Clones share the room, and its worker changes it at any time. A store asks it about single
/// endpoints, or follows its changes with a [`RoomReader`], so that a claim costs the same however
/// many endpoints are busy. So use one room for all claims of a worker.
///
/// # Example
/// ```
/// use webhooks_dispatch::store::{Room, RoomReader};
/// use webhooks_registry::EndpointNumber;
///
/// let [crm, shop] = [1, 2].map(EndpointNumber::from_u64);
/// let room = Room::new();
/// let mut reader = RoomReader::new(&room);
/// room.set(crm, Some(0));
/// room.set(shop, Some(3));
/// assert_eq!((room.of(crm), room.of(shop)), (0, 3));
/// assert_eq!(reader.changes(&room), [crm]);
/// assert!(reader.is_busy(crm) && !reader.is_busy(shop));
/// ```
#[derive(Clone)]
pub struct Room(Arc<RoomInner>);

struct RoomInner {
    /// Tells it from other rooms.
    id: u64,
    state: Mutex<RoomState>,
}

#[derive(Default)]
struct RoomState {
    /// The endpoints with a limit of their own.
    limits: BTreeMap<EndpointNumber, usize>,
    /// The endpoints that became busy or free last, the latest at the end.
    changed: VecDeque<EndpointNumber>,
    /// The number of changes before those.
    forgotten: u64,
}

impl Room {
    /// Returns a room without limits of its own for any endpoint.
    pub fn new() -> Self {
        let id = MADE.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(RoomInner { id, state: Mutex::default() }))
    }

    /// Returns the largest number of deliveries to claim for an endpoint now; `usize::MAX` if only
    /// the limits of the claim count.
    pub fn of(&self, endpoint: EndpointNumber) -> usize {
        self.state().limits.get(&endpoint).copied().unwrap_or(usize::MAX)
    }

    /// Returns whether nothing is to be claimed for an endpoint now.
    pub fn is_busy(&self, endpoint: EndpointNumber) -> bool {
        self.of(endpoint) == 0
    }

    /// Sets the room for an endpoint; `None` if only the limits of the claim count.
    pub fn set(&self, endpoint: EndpointNumber, room: Option<usize>) {
        let mut state = self.state();
        let before = match room {
            Some(room) => state.limits.insert(endpoint, room),
            None => state.limits.remove(&endpoint),
        };
        if (before == Some(0)) == (room == Some(0)) {
            return;
        }
        state.changed.push_back(endpoint);
        if state.changed.len() > MAX_CHANGES {
            state.changed.pop_front();
            state.forgotten += 1;
        }
    }

    /// Returns the number of busy endpoints.
    #[cfg(test)]
    pub(crate) fn busy(&self) -> usize {
        self.state().limits.values().filter(|room| **room == 0).count()
    }

    fn state(&self) -> MutexGuard<'_, RoomState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("limits", &self.state().limits).finish_non_exhaustive()
    }
}

impl FromIterator<EndpointNumber> for Room {
    /// Returns a room in which these endpoints are busy.
    fn from_iter<I: IntoIterator<Item = EndpointNumber>>(busy: I) -> Self {
        let room = Self::new();
        for endpoint in busy {
            room.set(endpoint, Some(0));
        }
        room
    }
}

/// A reader of a [`Room`] that sees its changes: the busy endpoints as of its last look.
#[derive(Debug)]
pub struct RoomReader {
    room: u64,
    /// The number of changes of the room at the last look.
    seen: u64,
    busy: HashSet<EndpointNumber>,
}

impl RoomReader {
    /// Returns a reader that has seen nothing: its next look finds all busy endpoints.
    pub fn new(room: &Room) -> Self {
        Self { room: room.0.id, seen: 0, busy: HashSet::new() }
    }

    /// Returns whether it reads this room.
    pub fn is_of(&self, room: &Room) -> bool {
        self.room == room.0.id
    }

    /// Returns whether an endpoint was busy at the last look.
    pub fn is_busy(&self, endpoint: EndpointNumber) -> bool {
        self.busy.contains(&endpoint)
    }

    /// Looks at the room, and returns the endpoints that became busy or free since the last look.
    pub fn changes(&mut self, room: &Room) -> Vec<EndpointNumber> {
        let state = room.state();
        let last = state.forgotten + state.changed.len() as u64;
        if self.seen == last {
            return Vec::new();
        }
        let mut changed: Vec<EndpointNumber> = match self.seen.checked_sub(state.forgotten) {
            Some(known) => {
                let known = usize::try_from(known).unwrap_or(usize::MAX);
                state.changed.iter().skip(known).copied().collect()
            }
            None => self.busy.iter().chain(state.limits.keys()).copied().collect(),
        };
        self.seen = last;
        // Most endpoints change more than one time.
        changed.sort_unstable();
        changed.dedup();
        let busy = &mut self.busy;
        changed.retain(|endpoint| match state.limits.get(endpoint) {
            Some(0) => busy.insert(*endpoint),
            _ => busy.remove(endpoint),
        });
        changed
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_reader_knows_the_busy_endpoints_after_each_look(
            steps in vec((0..20_u64, 0..4_usize, 0..10_u32), 1..200), forgets: bool,
        ) {
            let room = Room::new();
            let mut reader = RoomReader::new(&room);
            for (endpoint, limit, look) in steps {
                room.set(EndpointNumber::from_u64(endpoint), (limit < 3).then_some(limit));
                if look > 0 {
                    continue;
                }
                if forgets {
                    for _ in 0..MAX_CHANGES {
                        room.set(EndpointNumber::from_u64(99), Some(0));
                        room.set(EndpointNumber::from_u64(99), None);
                    }
                }
                let before = reader.busy.clone();
                let changed = reader.changes(&room);
                for number in (0..20).map(EndpointNumber::from_u64) {
                    prop_assert_eq!(reader.is_busy(number), room.is_busy(number));
                    let is_changed = before.contains(&number) != reader.is_busy(number);
                    prop_assert_eq!(is_changed, changed.contains(&number));
                }
                prop_assert!(reader.changes(&room).is_empty());
            }
        }
    }
}
