//! A state of the model: the rows of the store, the calls that are under way, and the workers'
//! memory.

use super::Scope;

/// The number of workers, and the largest number of deliveries.
pub(super) const WORKERS: usize = 2;
pub(super) const DELIVERIES: usize = 2;

/// The rows, the calls and the memory at one moment.
///
/// The store's tokens are random. Here they are small numbers, and [`State::canonical`] numbers
/// them by where they occur, so that states that differ in tokens only are the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) deliveries: [Delivery; DELIVERIES],
    pub(super) publications: [Publication; DELIVERIES],
    pub(super) endpoints: [Endpoint; DELIVERIES],
    pub(super) workers: [Worker; WORKERS],
    /// The claims in the memory of processes.
    pub(super) holders: Vec<Holder>,
    /// The delivery that a replay has read, and has not changed so far.
    pub(super) replaying: Option<usize>,
    /// The event whose partition a prune has looked at, and has not dropped so far.
    pub(super) pruning: Option<usize>,
    pub(super) left: Left,
}

/// The number of times that each thing may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Left {
    pub(super) faults: u8,
    pub(super) cancels: u8,
    pub(super) replays: u8,
    pub(super) disables: u8,
    pub(super) prunes: u8,
    pub(super) tries: u8,
}

/// A delivery: its row, and the parts of its past that the promises need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "what was seen is independent of each other")]
pub(super) struct Delivery {
    pub(super) row: Row,
    /// The row of its endpoint that it belongs to.
    pub(super) generation: u8,
    /// Whether it was sent after its publication, its last settlement as a retry, or its replay.
    pub(super) is_sent: bool,
    /// Whether a crash or a lost lease explains that it is sent once more.
    pub(super) is_excused: bool,
    /// Whether the endpoint has answered 2xx after the publication or the replay.
    pub(super) was_taken: bool,
    pub(super) was_replayed: bool,
    /// Whether all deliveries of smaller numbers had been committed when it was accepted.
    pub(super) follows: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Row {
    /// No row was made, or none so far.
    Absent,
    Waiting(Waiting),
    Ended(Status),
    /// It was dropped with its partition.
    Pruned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Waiting {
    /// Attempts that failed, after it was accepted, replayed or tried now.
    pub(super) attempts: u8,
    /// Whether its retry is not due now.
    pub(super) is_later: bool,
    pub(super) lease: Option<Lease>,
    /// Whether its event still exists.
    pub(super) has_event: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Lease {
    pub(super) token: u8,
    /// Whether it has ended by the store's clock.
    pub(super) is_over: bool,
    /// Whether a crash or a lost answer explains that no process knows of it.
    pub(super) is_lost: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Status {
    Delivered,
    Failed,
    Cancelled,
}

/// A publication of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Publication {
    NotYet,
    /// Its transaction has read the subscriptions: the rows of the endpoints that want the event.
    Begun {
        by: usize,
        wants: [Option<u8>; DELIVERIES],
        is_handed: bool,
        /// For each endpoint, whether its process knew of a cancellation when the transaction
        /// began.
        knows: [bool; DELIVERIES],
        follows: bool,
        client: Client,
    },
    /// It is committed, and the process that published it waits for the answer.
    Committed {
        by: usize,
        client: Client,
    },
    Done,
}

/// Whether the process that publishes still listens to its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Client {
    Listens,
    /// It lost the answer of a committed transaction, and tries again with the same token.
    Unheard,
    /// It lost the connection while the transaction ran. Its next try meets that transaction, and a
    /// later one uses another token.
    Held,
    Crashed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Endpoint {
    pub(super) is_active: bool,
    /// The number of its current row.
    pub(super) generation: u8,
    /// Whether a delivery of that row was cancelled by hand; the row counts such cancellations.
    pub(super) was_cancelled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Worker {
    pub(super) clock: Clock,
    pub(super) plan: Option<Plan>,
    /// For each endpoint, whether the count of cancellations that it read last includes that one.
    pub(super) knows: [bool; DELIVERIES],
}

/// The error of a worker's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Clock {
    Right,
    Ahead,
    Behind,
}

/// The result of the first statement of a claim: the endpoints to claim for, and the last delivery
/// that may be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Plan {
    pub(super) open: [Option<u8>; DELIVERIES],
    pub(super) bound: usize,
}

/// A claim in the memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Holder {
    pub(super) delivery: usize,
    pub(super) worker: usize,
    pub(super) token: u8,
    pub(super) stage: Stage,
    /// The row of its endpoint that the delivery belonged to when it was claimed.
    pub(super) generation: u8,
    /// Whether the count of cancellations included that one before the delivery was preclaimed.
    pub(super) knows: bool,
    /// Whether its lease ended by the store's clock.
    pub(super) has_lapsed: bool,
    /// Whether the store was asked to end the claim, and may have done so.
    pub(super) is_void: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Stage {
    /// The store's call that claimed it is not answered so far.
    Answering,
    /// The answer of the call that claimed it was lost; the worker claims again with the same
    /// token.
    Unheard,
    /// It is preclaimed, and waits for the worker's next claim.
    Handed,
    /// The worker has it, and has not sent it.
    Queued,
    /// It was sent, and is not settled.
    Sent { is_success: bool },
}

impl State {
    pub(super) fn new(left: Left) -> Self {
        let delivery = Delivery {
            row: Row::Absent,
            generation: 0,
            is_sent: false,
            is_excused: false,
            was_taken: false,
            was_replayed: false,
            follows: false,
        };
        Self {
            deliveries: [delivery; DELIVERIES],
            publications: [Publication::NotYet; DELIVERIES],
            endpoints: [Endpoint { is_active: true, generation: 0, was_cancelled: false };
                DELIVERIES],
            workers: [Worker { clock: Clock::Right, plan: None, knows: [false; DELIVERIES] };
                WORKERS],
            holders: Vec::new(),
            replaying: None,
            pruning: None,
            left,
        }
    }

    pub(super) fn waiting(&self, delivery: usize) -> Option<Waiting> {
        match self.deliveries[delivery].row {
            Row::Waiting(waiting) => Some(waiting),
            _ => None,
        }
    }

    pub(super) fn waiting_mut(&mut self, delivery: usize) -> Option<&mut Waiting> {
        match &mut self.deliveries[delivery].row {
            Row::Waiting(waiting) => Some(waiting),
            _ => None,
        }
    }

    pub(super) fn lease(&self, delivery: usize) -> Option<Lease> {
        self.waiting(delivery)?.lease
    }

    /// Returns whether the store still has this claim.
    pub(super) fn holds(&self, holder: &Holder) -> bool {
        self.lease(holder.delivery).is_some_and(|lease| lease.token == holder.token)
    }

    /// Returns whether a worker does not know the result of its last claim, in which case it claims
    /// again before anything else.
    pub(super) fn is_unheard(&self, worker: usize) -> bool {
        let mut holders = self.holders.iter();
        holders.any(|holder| holder.worker == worker && holder.stage == Stage::Unheard)
    }

    /// Returns a token that no claim of the delivery has.
    pub(super) fn fresh_token(&self, delivery: usize) -> u8 {
        let held = self.holders.iter().filter(|holder| holder.delivery == delivery);
        let tokens = held.map(|holder| holder.token);
        let last = tokens.chain(self.lease(delivery).map(|lease| lease.token)).max();
        last.map_or(0, |last| last + 1)
    }

    /// Notes that claims of a delivery do not hold any more, or may not, through no fault of their
    /// workers.
    pub(super) fn void(&mut self, delivery: usize) {
        for holder in self.holders.iter_mut().filter(|holder| holder.delivery == delivery) {
            holder.is_void = true;
        }
    }

    /// Returns the state without details that make no difference any more, and with its tokens
    /// named by where they occur.
    pub(super) fn canonical(mut self, scope: &Scope) -> Self {
        for delivery in &mut self.deliveries {
            delivery.follows &= scope.is_ordered();
            delivery.was_replayed &= scope.is_ordered();
            match &mut delivery.row {
                Row::Waiting(waiting) => {
                    if let Some(lease) = &mut waiting.lease {
                        lease.is_lost &= !lease.is_over;
                    }
                }
                _ => {
                    (delivery.is_sent, delivery.is_excused, delivery.was_taken) =
                        Default::default();
                }
            }
        }
        if scope.is_ordered() {
            self.endpoints.iter_mut().for_each(|endpoint| endpoint.was_cancelled = false);
        }
        self.forget_counts(scope.events());
        for holder in &mut self.holders {
            if !matches!(holder.stage, Stage::Answering | Stage::Handed) {
                (holder.generation, holder.knows) = (0, false);
            }
        }
        self.holders.sort_unstable();
        for delivery in 0..DELIVERIES {
            let mut names = [u8::MAX; 32];
            let mut next = 0;
            let mut name = |token: &mut u8| {
                let known = &mut names[usize::from(*token)];
                if *known == u8::MAX {
                    *known = next;
                    next += 1;
                }
                *token = *known;
            };
            if let Some(lease) = self.waiting_mut(delivery).and_then(|row| row.lease.as_mut()) {
                name(&mut lease.token);
            }
            for holder in self.holders.iter_mut().filter(|holder| holder.delivery == delivery) {
                name(&mut holder.token);
            }
        }
        self.holders.sort_unstable();
        self
    }

    /// Removes counts of cancellations once no delivery is preclaimed any more.
    fn forget_counts(&mut self, events: usize) {
        let is_handed = |holder: &Holder| matches!(holder.stage, Stage::Answering | Stage::Handed);
        let is_handing = |publication: &Publication| match publication {
            Publication::NotYet => true,
            Publication::Begun { is_handed, .. } => *is_handed,
            _ => false,
        };
        if !self.holders.iter().any(is_handed)
            && !self.publications[..events].iter().any(is_handing)
        {
            self.endpoints.iter_mut().for_each(|endpoint| endpoint.was_cancelled = false);
            self.workers.iter_mut().for_each(|worker| worker.knows = [false; DELIVERIES]);
        }
    }

    /// Returns whether all accepted deliveries have ended, and no process has anything to do.
    pub(super) fn is_settled(&self) -> bool {
        let is_idle = |publication: &Publication| {
            matches!(publication, Publication::NotYet | Publication::Done)
        };
        self.holders.is_empty()
            && self.publications.iter().all(is_idle)
            && self.deliveries.iter().all(|delivery| !matches!(delivery.row, Row::Waiting(_)))
            && self.replaying.is_none()
    }
}
