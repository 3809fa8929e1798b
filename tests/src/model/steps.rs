//! The steps that a state allows.

use super::state::{
    Client, Clock, DELIVERIES, Holder, Publication, Row, Stage, State, WORKERS, Waiting,
};
use super::{Deviation, Scope, Shape};

/// A claim in a process's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, missing_docs, reason = "traces name them")]
pub struct Held {
    pub worker: usize,
    pub delivery: usize,
    /// Its place among all.
    pub place: usize,
}

/// A step. Numbers are those of workers, deliveries, events and endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    missing_docs,
    reason = "traces name them; act.rs says what each does"
)]
pub enum Step {
    // Publishing.
    Publish { worker: usize, event: usize, is_handed: bool },
    Commit(usize),
    Abort(usize),
    Answer(usize),
    LoseAnswer(usize),
    LoseConnection(usize),
    PublishAgain(usize),
    // Claiming.
    Plan(usize),
    Claim { worker: usize, most: usize, is_heard: bool },
    ClaimAgain(usize),
    Take(Held),
    // Working.
    Send { held: Held, is_success: bool },
    Forget(Held),
    Settle { held: Held, is_heard: bool },
    Release(Held),
    Extend(Held),
    // Time and faults.
    LeaseEnds(usize),
    LeaseIsLost(usize),
    RetryIsDue(usize),
    ClockSteps(usize, bool),
    ClockIsRight(usize),
    Crash(usize),
    // Operators.
    Cancel { worker: usize, delivery: usize },
    ReplayFind(usize),
    ReplayCommit,
    TryNow(usize),
    Disable { endpoint: usize, cancels: bool },
    Register(usize),
    CancelClosed(usize),
    Look(usize),
    Drop(usize),
}

impl Step {
    /// Returns whether the step happens by itself sooner or later: it is no fault, no command, and
    /// no choice of a worker that undoes its own progress.
    pub(super) fn is_fair(self) -> bool {
        match self {
            Self::Claim { is_heard, .. } | Self::Settle { is_heard, .. } => is_heard,
            Self::Publish { .. }
            | Self::LoseAnswer(_)
            | Self::LoseConnection(_)
            | Self::Extend(_)
            | Self::LeaseIsLost(_)
            | Self::ClockSteps(..)
            | Self::Crash(_)
            | Self::Cancel { .. }
            | Self::ReplayFind(_)
            | Self::TryNow(_)
            | Self::Disable { .. }
            | Self::Register(_)
            | Self::Look(_)
            | Self::Drop(_)
            | Self::Release(_) => false,
            _ => true,
        }
    }
}

/// Returns all steps from a state.
pub(super) fn steps(scope: &Scope, state: &State) -> Vec<Step> {
    let mut steps = Vec::with_capacity(32);
    publications(scope, state, &mut steps);
    claims(scope, state, &mut steps);
    for (place, holder) in state.holders.iter().enumerate() {
        work(scope, state, (place, holder), &mut steps);
    }
    time(state, &mut steps);
    operators(scope, state, &mut steps);
    steps
}

fn publications(scope: &Scope, state: &State, steps: &mut Vec<Step>) {
    let has_fault = state.left.faults > 0;
    for event in 0..scope.events() {
        match state.publications[event] {
            Publication::NotYet => {
                let is_next = |earlier: &Publication| *earlier != Publication::NotYet;
                if state.publications[..event].iter().all(is_next) {
                    // Workers are alike until one has published.
                    for worker in 0..if event == 0 { 1 } else { WORKERS } {
                        steps.push(Step::Publish { worker, event, is_handed: false });
                        if !scope.is_ordered() {
                            steps.push(Step::Publish { worker, event, is_handed: true });
                        }
                    }
                }
            }
            Publication::Begun { client, .. } => {
                steps.push(Step::Commit(event));
                if client != Client::Listens {
                    steps.push(Step::Abort(event));
                } else if has_fault {
                    steps.push(Step::LoseConnection(event));
                }
            }
            Publication::Committed { client: Client::Listens, .. } => {
                steps.push(Step::Answer(event));
                if has_fault {
                    steps.push(Step::LoseAnswer(event));
                }
            }
            Publication::Committed { .. } => steps.push(Step::PublishAgain(event)),
            Publication::Done => {}
        }
    }
}

fn claims(scope: &Scope, state: &State, steps: &mut Vec<Step>) {
    let looks_once = scope.deviates(Deviation::ClaimsInTwoStatements);
    let is_planned = scope.is_ordered() || looks_once;
    for worker in 0..WORKERS {
        if state.is_unheard(worker) {
            steps.push(Step::ClaimAgain(worker));
            continue;
        }
        let has_plan = state.workers[worker].plan.is_some();
        if !has_plan && (0..DELIVERIES).any(|delivery| is_due(scope, state, worker, delivery)) {
            if is_planned {
                steps.push(Step::Plan(worker));
                continue;
            }
        } else if !has_plan {
            continue;
        }
        for most in 1..=if scope.is_ordered() && !looks_once { 1 } else { DELIVERIES } {
            steps.push(Step::Claim { worker, most, is_heard: true });
            if state.left.faults > 0 {
                steps.push(Step::Claim { worker, most, is_heard: false });
            }
        }
    }
}

/// Returns whether a delivery is pending for an active endpoint, and its own row and the endpoint's
/// rows allow a claim. The first statement of a claim checks this.
pub(super) fn is_due(scope: &Scope, state: &State, worker: usize, delivery: usize) -> bool {
    let clock = state.workers[worker].clock;
    let Some(waiting) = state.waiting(delivery) else { return false };
    let is_leased =
        |other: usize| state.waiting(other).is_some_and(|other| !is_free(scope, other, clock));
    let is_head = (0..delivery).all(|earlier| state.waiting(earlier).is_none());
    is_open(scope, state, delivery)
        && is_free(scope, waiting, clock)
        && !is_early(scope, waiting, clock)
        && (!scope.is_ordered() || (is_head && !(0..DELIVERIES).any(is_leased)))
}

/// Returns whether the endpoint's row that a delivery belongs to is active.
pub(super) fn is_open(scope: &Scope, state: &State, delivery: usize) -> bool {
    let endpoint = state.endpoints[scope.endpoint_of(delivery)];
    endpoint.is_active && endpoint.generation == state.deliveries[delivery].generation
}

/// Returns whether a claim sees the delivery as unleased.
pub(super) fn is_free(scope: &Scope, waiting: Waiting, clock: Clock) -> bool {
    let Some(lease) = waiting.lease else { return true };
    let own = scope.deviates(Deviation::LeasesByOwnClock).then_some(clock);
    scope.deviates(Deviation::ClaimsIgnoreLeases)
        || match own {
            Some(Clock::Ahead) => true,
            Some(Clock::Behind) => false,
            _ => lease.is_over,
        }
}

/// Returns whether a claim sees the delivery as not due, by its worker's clock.
pub(super) fn is_early(scope: &Scope, waiting: Waiting, clock: Clock) -> bool {
    match clock {
        Clock::Right => waiting.is_later,
        Clock::Ahead => false,
        // A newly published delivery is not due by this clock, unless it is ordered.
        Clock::Behind => waiting.is_later || !scope.is_ordered(),
    }
}

fn work(scope: &Scope, state: &State, (place, holder): (usize, &Holder), steps: &mut Vec<Step>) {
    let is_slow = scope.deviates(Deviation::LeasesByOwnClock)
        && state.workers[holder.worker].clock == Clock::Behind;
    let held = Held { worker: holder.worker, delivery: holder.delivery, place };
    let is_believed = !holder.has_lapsed || is_slow;
    match holder.stage {
        Stage::Answering | Stage::Unheard => {}
        Stage::Handed if state.is_unheard(holder.worker) => {}
        Stage::Handed => {
            steps.push(if is_believed { Step::Take(held) } else { Step::Forget(held) });
            steps.push(Step::Release(held));
        }
        Stage::Queued if is_believed => {
            steps.push(Step::Send { held, is_success: true });
            steps.push(Step::Send { held, is_success: false });
            steps.push(Step::Release(held));
        }
        Stage::Queued => steps.push(Step::Forget(held)),
        Stage::Sent { .. } => {
            steps.push(Step::Settle { held, is_heard: true });
            if state.left.faults > 0 {
                steps.push(Step::Settle { held, is_heard: false });
            }
        }
    }
    if holder.has_lapsed && matches!(holder.stage, Stage::Queued | Stage::Sent { .. }) {
        steps.push(Step::Extend(held));
    }
}

fn time(state: &State, steps: &mut Vec<Step>) {
    for delivery in 0..DELIVERIES {
        let Some(waiting) = state.waiting(delivery) else { continue };
        if waiting.is_later {
            steps.push(Step::RetryIsDue(delivery));
        }
        let Some(lease) = waiting.lease.filter(|lease| !lease.is_over) else { continue };
        let is_held = state.holders.iter().any(|one| one.delivery == delivery && state.holds(one));
        if !is_held || lease.is_lost {
            steps.push(Step::LeaseEnds(delivery));
        } else if state.left.faults > 0 {
            steps.push(Step::LeaseIsLost(delivery));
        }
    }
    for worker in 0..WORKERS {
        if state.workers[worker].clock != Clock::Right {
            steps.push(Step::ClockIsRight(worker));
        } else if state.left.faults > 0 {
            steps.extend([true, false].map(|is_ahead| Step::ClockSteps(worker, is_ahead)));
        }
        if state.left.faults > 0 {
            steps.push(Step::Crash(worker));
        }
    }
}

fn operators(scope: &Scope, state: &State, steps: &mut Vec<Step>) {
    let left = state.left;
    for delivery in 0..DELIVERIES {
        let row = state.deliveries[delivery].row;
        let is_waiting = matches!(row, Row::Waiting(_));
        if left.cancels > 0 && is_waiting && is_open(scope, state, delivery) {
            steps.extend((0..WORKERS).map(|worker| Step::Cancel { worker, delivery }));
        }
        if left.tries > 0 && can_try(scope, state, delivery) {
            steps.push(Step::TryNow(delivery));
        }
        let endpoint = state.endpoints[scope.endpoint_of(delivery)];
        let replays_all = scope.deviates(Deviation::ReplaysWhatIsOpen);
        let is_ended = matches!(row, Row::Ended(_))
            || (is_waiting && (replays_all || !is_open(scope, state, delivery)));
        if left.replays > 0 && is_ended && endpoint.is_active {
            steps.push(Step::ReplayFind(delivery));
        }
        let leaves = scope.deviates(Deviation::LeavesWhatIsGone);
        if is_waiting && !is_open(scope, state, delivery) && !leaves {
            steps.push(Step::CancelClosed(delivery));
        }
    }
    if state.replaying.is_some() {
        steps.push(Step::ReplayCommit);
    }
    // One endpoint is disabled; if there are two, the other one goes on.
    if left.disables > 0 && state.endpoints[0].is_active {
        steps.extend([true, false].map(|cancels| Step::Disable { endpoint: 0, cancels }));
    }
    if !state.endpoints[0].is_active {
        steps.push(Step::Register(0));
    }
    for event in 0..scope.events() {
        if left.prunes > 0 && state.pruning.is_none() && has_all_ended(scope, state, event) {
            steps.push(Step::Look(event));
        }
    }
    // While a replay that has read a partition is not committed, the partition cannot be dropped.
    if let Some(event) = state.pruning
        && state.replaying.is_none()
    {
        steps.push(Step::Drop(event));
    }
}

/// Returns whether a delivery can be tried now: it waits for its retry, and is not claimed.
fn can_try(scope: &Scope, state: &State, delivery: usize) -> bool {
    let tries_all = scope.deviates(Deviation::TriesWhatIsClaimed);
    let is_open = is_open(scope, state, delivery);
    state.waiting(delivery).is_some_and(|waiting| {
        let is_claimed = waiting.lease.is_some_and(|lease| !lease.is_over);
        is_open && (if is_claimed { tries_all } else { waiting.is_later })
    })
}

/// Returns whether an event has deliveries, and all of them have ended.
pub(super) fn has_all_ended(scope: &Scope, state: &State, event: usize) -> bool {
    let rows = || scope.deliveries_of(event).map(|delivery| state.deliveries[delivery].row);
    rows().any(|row| matches!(row, Row::Ended(_)))
        && !rows().any(|row| matches!(row, Row::Waiting(_)))
}

/// Returns the rows of the endpoints that want an event, as a transaction sees them.
pub(super) fn wanted(scope: &Scope, state: &State) -> [Option<u8>; DELIVERIES] {
    let endpoints = if scope.shape == Shape::OneEvent { DELIVERIES } else { 1 };
    std::array::from_fn(|number| {
        let endpoint = state.endpoints[number];
        (number < endpoints && endpoint.is_active).then_some(endpoint.generation)
    })
}
