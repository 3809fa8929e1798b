//! The promises that every step must keep.

use super::Scope;
use super::state::{Clock, DELIVERIES, Delivery, Publication, Row, State, Status, Waiting};
use super::steps::Step;

/// A promise of the store: of the promises that runs are checked for, those that the model can
/// express.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "tests name them all")]
pub enum Promise {
    /// An accepted delivery ends as delivered, failed or cancelled, and is pending before that.
    AcceptedIsNeverLost,
    /// Nothing that has ended is claimed.
    EndedIsNotHandedOut,
    /// From any state, every run without further faults ends with everything settled.
    EverythingEnds,
    /// The event of a pending delivery exists.
    EventIsKept,
    /// In an ordered endpoint, no delivery overtakes one that was accepted before it.
    InOrder,
    /// A lease that no process knows of is explained by a crash or a lost answer.
    LeasesAreHeld,
    /// A retry is not made before it is due.
    NotBeforeDue,
    /// In an ordered endpoint, one delivery is claimed at a time.
    OneAtATime,
    /// Nobody can claim a delivery while another worker's lease lasts.
    OneHolder,
    /// A delivery that is settled as delivered was answered 2xx.
    ResultsAreTrue,
    /// Nothing is sent again, unless a crash or a lost lease explains it.
    SentOnce,
    /// A delivery that has ended stays as it is, unless it is replayed.
    SettledForGood,
}

/// Returns the promise that a step broke by its changes, if any.
pub(super) fn broken(scope: &Scope, before: &State, step: Step, after: &State) -> Option<Promise> {
    let deliveries = || before.deliveries.iter().zip(&after.deliveries);
    let is_held = |delivery| !is_orphan(scope, after, delivery);
    deliveries()
        .find_map(|(before, after)| changed(before, step, after))
        .or_else(|| (!(0..DELIVERIES).all(is_held)).then_some(Promise::LeasesAreHeld))
}

/// Returns the promise that the change of a row breaks.
fn changed(before: &Delivery, step: Step, after: &Delivery) -> Option<Promise> {
    match (before.row, after.row) {
        (_, Row::Waiting(Waiting { has_event: false, .. })) => Some(Promise::EventIsKept),
        (Row::Waiting(_), Row::Absent | Row::Pruned) => Some(Promise::AcceptedIsNeverLost),
        (Row::Waiting(_), Row::Ended(Status::Delivered)) if !after.was_taken => {
            Some(Promise::ResultsAreTrue)
        }
        (Row::Ended(status), row) if row != Row::Ended(status) => {
            let is_fair = match step {
                Step::ReplayCommit => matches!(row, Row::Waiting(_)),
                Step::Drop(_) => row == Row::Pruned,
                _ => false,
            };
            (!is_fair).then_some(Promise::SettledForGood)
        }
        _ => None,
    }
}

/// Returns whether no process knows of a delivery's lease, and nothing explains it. If the endpoint
/// is gone, the delivery is cancelled, whichever worker has leased it.
fn is_orphan(scope: &Scope, state: &State, delivery: usize) -> bool {
    let endpoint = state.endpoints[scope.endpoint_of(delivery)];
    let is_open =
        endpoint.is_active && endpoint.generation == state.deliveries[delivery].generation;
    let is_leased = |lease: &super::state::Lease| {
        let mut holders = state.holders.iter();
        let is_held = holders.any(|one| one.delivery == delivery && one.token == lease.token);
        !is_held && !lease.is_over && !lease.is_lost
    };
    is_open && state.lease(delivery).as_ref().is_some_and(is_leased)
}

/// Returns the promise that is broken if a worker claims this delivery from the database.
pub(super) fn broken_by_claim(
    scope: &Scope,
    state: &State,
    (worker, delivery): (usize, usize),
) -> Option<Promise> {
    let waiting = state.waiting(delivery)?;
    // Due times use wall clocks.
    let is_early = waiting.is_later && state.workers[worker].clock != Clock::Ahead;
    let has_firm = |is_it: &dyn Fn(usize) -> bool| {
        let mut holders = state.holders.iter();
        holders.any(|one| is_it(one.delivery) && !one.has_lapsed && !one.is_void)
    };
    if has_firm(&|other| other == delivery) {
        Some(Promise::OneHolder)
    } else if is_early {
        Some(Promise::NotBeforeDue)
    } else if scope.is_ordered() && has_firm(&|other| other != delivery) {
        Some(Promise::OneAtATime)
    } else {
        None
    }
}

/// Returns the promise that is broken if this delivery is sent by a claim that has not ended.
pub(super) fn broken_by_send(scope: &Scope, state: &State, delivery: usize) -> Option<Promise> {
    let sent = &state.deliveries[delivery];
    let is_overtaken = |earlier: usize| {
        let earlier_one = &state.deliveries[earlier];
        sent.follows && !earlier_one.was_replayed && matches!(earlier_one.row, Row::Waiting(_))
    };
    if sent.is_sent && !sent.is_excused {
        Some(Promise::SentOnce)
    } else if scope.is_ordered() && (0..delivery).any(is_overtaken) {
        Some(Promise::InOrder)
    } else {
        None
    }
}

/// Returns whether all deliveries of smaller numbers are committed.
pub(super) fn follows(state: &State, event: usize) -> bool {
    state.publications[..event]
        .iter()
        .all(|publication| matches!(publication, Publication::Committed { .. } | Publication::Done))
}
