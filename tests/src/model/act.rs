//! The effect of each step.

use super::promises::{Promise, broken, broken_by_send, follows};
use super::state::{
    Client, Clock, DELIVERIES, Endpoint, Holder, Lease, Publication, Row, Stage, State, Status,
    Waiting,
};
use super::steps::{Step, has_all_ended, is_open, wanted};
use super::{Deviation, Scope};

/// The number of attempts per delivery.
const ATTEMPTS: u8 = 2;

/// Returns the state after a step, and the promise that the step broke, if any.
pub(super) fn act(scope: &Scope, before: &State, step: Step) -> (State, Option<Promise>) {
    let mut act = Act { scope, state: before.clone(), broken: None };
    act.step(step);
    let broken = act.broken.or_else(|| broken(scope, before, step, &act.state));
    (act.state.canonical(scope), broken)
}

pub(super) struct Act<'s> {
    pub(super) scope: &'s Scope,
    pub(super) state: State,
    pub(super) broken: Option<Promise>,
}

impl Act<'_> {
    fn step(&mut self, step: Step) {
        match step {
            Step::Publish { worker, event, is_handed } => self.publish(worker, event, is_handed),
            Step::Commit(event) => self.commit(event),
            Step::Abort(event) => self.abort(event),
            Step::Answer(event) => self.answer(event),
            Step::LoseAnswer(event) => {
                self.fault();
                if let Publication::Committed { client, .. } = &mut self.state.publications[event] {
                    *client = Client::Unheard;
                }
            }
            Step::LoseConnection(event) => {
                self.fault();
                if let Publication::Begun { client, .. } = &mut self.state.publications[event] {
                    *client = Client::Held;
                }
            }
            Step::PublishAgain(event) => self.publish_again(event),
            Step::Plan(worker) => self.plan(worker),
            Step::Claim { worker, most, is_heard } => self.claim(worker, most, is_heard),
            Step::ClaimAgain(worker) => self.claim_again(worker),
            Step::Take(held) => self.take(held.place),
            Step::Send { held, is_success } => self.send(held.place, is_success),
            Step::Forget(held) => self.forget(held.place),
            Step::Settle { held, is_heard } => self.settle(held.place, is_heard),
            Step::Release(held) => self.release(held.place),
            Step::Extend(held) => self.extend(held.place),
            Step::LeaseEnds(delivery) => self.end_lease(delivery),
            Step::LeaseIsLost(delivery) => {
                self.fault();
                self.end_lease(delivery);
            }
            Step::RetryIsDue(delivery) => {
                if let Some(row) = self.state.waiting_mut(delivery) {
                    row.is_later = false;
                }
            }
            Step::ClockSteps(worker, is_ahead) => {
                self.fault();
                self.state.workers[worker].clock =
                    if is_ahead { Clock::Ahead } else { Clock::Behind };
            }
            Step::ClockIsRight(worker) => self.state.workers[worker].clock = Clock::Right,
            Step::Crash(worker) => self.crash(worker),
            Step::Cancel { worker, delivery } => self.cancel(worker, delivery),
            Step::ReplayFind(delivery) => {
                self.state.left.replays -= 1;
                self.state.replaying = Some(delivery);
            }
            Step::ReplayCommit => self.replay(),
            Step::TryNow(delivery) => self.try_now(delivery),
            Step::Disable { endpoint, cancels } => self.disable(endpoint, cancels),
            Step::Register(endpoint) => {
                // A later registration makes a new row.
                let generation = self.state.endpoints[endpoint].generation + 1;
                self.state.endpoints[endpoint] =
                    Endpoint { is_active: true, generation, was_cancelled: false };
                for worker in &mut self.state.workers {
                    worker.knows[endpoint] = false;
                }
            }
            Step::CancelClosed(delivery) => self.end(delivery, Status::Cancelled),
            Step::Look(event) => {
                self.state.left.prunes -= 1;
                self.state.pruning = Some(event);
            }
            Step::Drop(event) => self.drop_partition(event),
        }
    }

    pub(super) fn fault(&mut self) {
        self.state.left.faults -= 1;
    }

    fn try_now(&mut self, delivery: usize) {
        self.state.left.tries -= 1;
        if let Some(row) = self.state.waiting_mut(delivery) {
            (row.attempts, row.is_later, row.lease) = (0, false, None);
        }
    }

    /// The transaction begins, and reads the subscriptions.
    fn publish(&mut self, by: usize, event: usize, is_handed: bool) {
        let follows = follows(&self.state, event);
        let wants = wanted(self.scope, &self.state);
        let (knows, client) = (self.state.workers[by].knows, Client::Listens);
        self.state.publications[event] =
            Publication::Begun { by, wants, is_handed, knows, follows, client };
    }

    fn commit(&mut self, event: usize) {
        let Publication::Begun { by, wants, is_handed, knows, follows, client } =
            self.state.publications[event]
        else {
            return;
        };
        for delivery in self.scope.deliveries_of(event) {
            let Some(generation) = wants[self.scope.endpoint_of(delivery)] else { continue };
            let token = 0;
            let is_lost = client == Client::Crashed;
            let lease = is_handed.then_some(Lease { token, is_over: false, is_lost });
            let waiting = Waiting { attempts: 0, is_later: false, lease, has_event: true };
            let row = &mut self.state.deliveries[delivery];
            (row.row, row.generation, row.follows) = (Row::Waiting(waiting), generation, follows);
            if is_handed && !is_lost {
                self.hold(delivery, by, token, Stage::Answering);
                if let Some(holder) = self.state.holders.last_mut() {
                    holder.knows = knows[self.scope.endpoint_of(delivery)];
                }
            }
        }
        self.state.publications[event] = match client {
            Client::Crashed => Publication::Done,
            _ => Publication::Committed { by, client },
        };
    }

    /// The server rolls back a transaction that nobody listens to. A live process publishes again.
    fn abort(&mut self, event: usize) {
        let Publication::Begun { by, is_handed, client, .. } = self.state.publications[event]
        else {
            return;
        };
        match client {
            Client::Crashed => self.state.publications[event] = Publication::Done,
            _ => self.publish(by, event, is_handed),
        }
    }

    /// The publisher gets the answer with its preclaimed deliveries, and puts them into memory.
    fn answer(&mut self, event: usize) {
        for holder in self.answering(event) {
            let held = &mut self.state.holders[holder];
            held.stage = Stage::Handed;
            if self.scope.deviates(Deviation::CountsWhenAnswered) {
                let knows = self.state.workers[held.worker].knows;
                held.knows = knows[self.scope.endpoint_of(held.delivery)];
            }
        }
        self.state.publications[event] = Publication::Done;
    }

    /// The publisher's next try finds that the event has been published, and releases the
    /// deliveries that the first try claimed.
    fn publish_again(&mut self, event: usize) {
        let Publication::Committed { client, .. } = self.state.publications[event] else { return };
        let forgets = match client {
            Client::Held => Deviation::ForgetsHeldPublications,
            _ => Deviation::ForgetsLostPublications,
        };
        for holder in self.answering(event).into_iter().rev() {
            let holder = self.state.holders.remove(holder);
            if !self.scope.deviates(forgets) {
                self.put_back(&holder);
            }
        }
        self.state.publications[event] = Publication::Done;
    }

    /// Returns the places of the claims of a publication that were not answered.
    fn answering(&self, event: usize) -> Vec<usize> {
        let holders = self.state.holders.iter().enumerate();
        let is_own = |holder: &Holder| {
            holder.stage == Stage::Answering && self.scope.event_of(holder.delivery) == event
        };
        holders.filter(|(_, holder)| is_own(holder)).map(|(place, _)| place).collect()
    }

    fn send(&mut self, place: usize, is_success: bool) {
        let holder = self.state.holders[place];
        self.state.holders[place].stage = Stage::Sent { is_success };
        if holder.is_void {
            // It ended while it was in flight; if it was replayed since, that is another claim.
            return;
        }
        self.state.deliveries[holder.delivery].is_excused |= holder.has_lapsed;
        self.broken = broken_by_send(self.scope, &self.state, holder.delivery);
        let sent = &mut self.state.deliveries[holder.delivery];
        sent.is_excused &= !sent.is_sent;
        sent.is_sent = true;
        sent.was_taken |= is_success;
    }

    /// A worker drops a claim whose lease ended before it was sent. A preclaimed delivery is
    /// released.
    fn forget(&mut self, place: usize) {
        let holder = self.state.holders.remove(place);
        if holder.stage == Stage::Handed {
            self.put_back(&holder);
        }
    }

    fn settle(&mut self, place: usize, is_heard: bool) {
        let mut holder = self.state.holders.remove(place);
        let Stage::Sent { is_success } = holder.stage else { return };
        let is_fenced = !self.scope.deviates(Deviation::SettlesUnfenced);
        let delivery = holder.delivery;
        if is_open(self.scope, &self.state, delivery) && (self.state.holds(&holder) || !is_fenced) {
            match self.state.waiting(delivery) {
                Some(_) if is_success => self.settle_as(delivery, Status::Delivered),
                Some(row) if row.attempts + 1 >= ATTEMPTS => {
                    self.settle_as(delivery, Status::Failed);
                }
                Some(mut row) => {
                    (row.attempts, row.is_later, row.lease) = (row.attempts + 1, true, None);
                    let delivery = &mut self.state.deliveries[delivery];
                    delivery.row = Row::Waiting(row);
                    (delivery.is_sent, delivery.is_excused) = (false, false);
                }
                None => {}
            }
            holder.is_void = true;
        }
        if !is_heard {
            // It settles again.
            self.fault();
            self.state.holders.push(holder);
        }
    }

    fn settle_as(&mut self, delivery: usize, status: Status) {
        self.state.deliveries[delivery].row = Row::Ended(status);
        self.state.deliveries[delivery].is_sent = false;
        self.state.deliveries[delivery].is_excused = false;
    }

    /// A delivery that was not sent is settled as released.
    fn release(&mut self, place: usize) {
        let holder = self.state.holders.remove(place);
        self.put_back(&holder);
    }

    fn extend(&mut self, place: usize) {
        let holder = self.state.holders[place];
        if !self.state.holds(&holder) {
            if holder.stage == Stage::Queued {
                self.state.holders.remove(place);
            }
            return;
        }
        self.state.holders[place].has_lapsed = false;
        if let Some(lease) = self.lease_mut(holder.delivery) {
            lease.is_over = false;
        }
    }

    /// A lease ends by the store's clock.
    fn end_lease(&mut self, delivery: usize) {
        let Some(lease) = self.lease_mut(delivery) else { return };
        lease.is_over = true;
        let token = lease.token;
        let mut was_sent = false;
        for holder in &mut self.state.holders {
            if holder.delivery == delivery && holder.token == token {
                holder.has_lapsed = true;
                was_sent |= matches!(holder.stage, Stage::Sent { .. });
            }
        }
        self.state.deliveries[delivery].is_excused |= was_sent;
    }

    /// A process dies, and another one starts in its place.
    fn crash(&mut self, worker: usize) {
        self.fault();
        for holder in std::mem::take(&mut self.state.holders) {
            if holder.worker != worker {
                self.state.holders.push(holder);
                continue;
            }
            let is_held = self.state.holds(&holder);
            if let Some(lease) = self.lease_mut(holder.delivery).filter(|_| is_held) {
                lease.is_lost = true;
                let was_sent = matches!(holder.stage, Stage::Sent { .. });
                self.state.deliveries[holder.delivery].is_excused |= was_sent;
            }
        }
        for publication in &mut self.state.publications {
            match publication {
                Publication::Begun { by, client, .. } if *by == worker => *client = Client::Crashed,
                Publication::Committed { by, .. } if *by == worker => {
                    *publication = Publication::Done;
                }
                _ => {}
            }
        }
        self.state.workers[worker].plan = None;
        self.state.workers[worker].knows = [false; DELIVERIES];
        self.state.workers[worker].clock = Clock::Right;
    }

    /// A process cancels a delivery, and takes it out of its own memory.
    fn cancel(&mut self, worker: usize, delivery: usize) {
        self.state.left.cancels -= 1;
        self.end(delivery, Status::Cancelled);
        self.state.endpoints[self.scope.endpoint_of(delivery)].was_cancelled = true;
        self.state.holders.retain(|holder| {
            (holder.worker, holder.delivery, holder.stage) != (worker, delivery, Stage::Handed)
        });
    }

    /// Makes the delivery that a replay has read due again, if it has not changed since.
    fn replay(&mut self) {
        let Some(delivery) = self.state.replaying.take() else { return };
        // It goes to the endpoint's current row, whichever row it belonged to.
        let endpoint = self.state.endpoints[self.scope.endpoint_of(delivery)];
        let row = self.state.deliveries[delivery].row;
        // A delivery that waits for an earlier row is as good as cancelled.
        let is_left_over = matches!(row, Row::Waiting(_))
            && self.state.deliveries[delivery].generation != endpoint.generation;
        let is_replayed = match row {
            Row::Ended(_) => true,
            Row::Waiting(_) => is_left_over || self.scope.deviates(Deviation::ReplaysWhatIsOpen),
            _ => false,
        };
        if !endpoint.is_active || !is_replayed {
            return;
        }
        if is_left_over {
            self.state.void(delivery);
        }
        let has_event = self.state.waiting(delivery).is_none_or(|waiting| waiting.has_event);
        let waiting = Waiting { attempts: 0, is_later: false, lease: None, has_event };
        let replayed = &mut self.state.deliveries[delivery];
        replayed.row = Row::Waiting(waiting);
        replayed.generation = endpoint.generation;
        (replayed.is_sent, replayed.is_excused, replayed.was_taken) = (false, false, false);
        replayed.was_replayed = true;
    }

    /// An endpoint gets nothing more. Its pending deliveries are cancelled, except those that
    /// others have locked.
    fn disable(&mut self, endpoint: usize, cancels: bool) {
        self.state.left.disables -= 1;
        for delivery in 0..DELIVERIES {
            let is_own = self.scope.endpoint_of(delivery) == endpoint
                && is_open(self.scope, &self.state, delivery);
            if is_own && cancels {
                self.end(delivery, Status::Cancelled);
            }
        }
        self.state.endpoints[endpoint].is_active = false;
    }

    /// A partition is dropped, unless a second look finds a pending delivery in it.
    fn drop_partition(&mut self, event: usize) {
        self.state.pruning = None;
        let looks = !self.scope.deviates(Deviation::PrunesWithoutSecondLook);
        if looks && !has_all_ended(self.scope, &self.state, event) {
            return;
        }
        for delivery in self.scope.deliveries_of(event) {
            match &mut self.state.deliveries[delivery].row {
                Row::Waiting(waiting) => waiting.has_event = false,
                row @ Row::Ended(_) => *row = Row::Pruned,
                _ => {}
            }
        }
    }

    /// Ends a pending delivery, whichever worker has it.
    fn end(&mut self, delivery: usize, status: Status) {
        if self.state.waiting(delivery).is_some() {
            self.state.deliveries[delivery].row = Row::Ended(status);
            self.state.void(delivery);
        }
    }

    pub(super) fn hold(&mut self, delivery: usize, worker: usize, token: u8, stage: Stage) {
        let (has_lapsed, is_void) = (false, false);
        let (generation, knows) = (self.state.deliveries[delivery].generation, false);
        let holder =
            Holder { delivery, worker, token, stage, generation, knows, has_lapsed, is_void };
        self.state.holders.push(holder);
    }

    /// Releases a claim, if it still holds, so that any worker can claim the delivery again.
    fn put_back(&mut self, holder: &Holder) {
        let is_open = is_open(self.scope, &self.state, holder.delivery);
        if is_open
            && self.state.holds(holder)
            && let Some(waiting) = self.state.waiting_mut(holder.delivery)
        {
            waiting.lease = None;
        }
    }

    pub(super) fn lease_mut(&mut self, delivery: usize) -> Option<&mut Lease> {
        self.state.waiting_mut(delivery)?.lease.as_mut()
    }
}
