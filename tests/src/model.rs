//! A model of the store that workers share, explored completely: every order of the steps of two
//! workers, two deliveries, an operator and a prune, with crashes, lost answers and lost leases.
//!
//! A step is a transaction of `webhooks-postgres` where that is one, and a statement or a change in
//! memory where it is not. The model knows which rows a transaction reads and writes, and nothing
//! of SQL. Each step is checked against the promises. From each state, every run without further
//! faults must end with everything settled.
//!
//! The model leaves out: the workers' shares of endpoints (so both workers may claim for an ordered
//! endpoint), waking workers, crashes of the server, and replays of missed events.

mod act;
mod claims;
mod promises;
mod search;
mod state;
mod steps;

// The public interface is:
pub use self::promises::Promise;
pub use self::search::{Report, explore};
pub use self::steps::{Held, Step};

/// The limits of an exploration.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// The deliveries of the model.
    pub shape: Shape,
    /// The largest number of faults: a crash, a lost answer, a lost lease, a step of a clock.
    pub faults: u8,
    /// The commands that an operator may give, each once; [`Command::Disable`] is followed by a
    /// registration.
    pub commands: &'static [Command],
    /// The differences between the store and a correct one.
    pub deviations: &'static [Deviation],
}

/// The deliveries of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "tests name them all")]
pub enum Shape {
    /// A single one.
    One,
    /// Those of one event, for two endpoints.
    OneEvent,
    /// Those of two events, for one endpoint.
    TwoEvents,
    /// Those of two events, for one ordered endpoint.
    Ordered,
}

/// A command of an operator, or of retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "tests name them all")]
pub enum Command {
    /// A delivery is cancelled.
    Cancel,
    /// An endpoint is disabled, and perhaps registered anew.
    Disable,
    /// Partitions are dropped.
    Prune,
    /// A delivery is replayed: it goes to the row that its endpoint has at the time of the change.
    Replay,
    /// A delivery whose retry waits is tried now.
    TryNow,
}

/// A difference between the store and a correct one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "tests name them all")]
pub enum Deviation {
    /// A claim takes deliveries that are leased.
    ClaimsIgnoreLeases,
    /// A claim finds the head of an ordered endpoint in one statement, and takes it in the next one,
    /// which does not look again.
    ClaimsInTwoStatements,
    /// A preclaimed delivery is marked with the cancellations that its process knows when it hears
    /// that the event was published, and not with those that it knew before.
    CountsWhenAnswered,
    /// A claim whose answer was lost does not get the same deliveries when it is made again.
    ForgetsLostClaims,
    /// A publication loses its connection, and its next try meets the transaction while it runs.
    /// The deliveries that the publication claimed are not released.
    ForgetsHeldPublications,
    /// A publication loses its answer. The deliveries that it claimed are not released.
    ForgetsLostPublications,
    /// Deliveries that are left over for an endpoint that is gone are not cancelled.
    LeavesWhatIsGone,
    /// Leases are compared with the clock of the worker that claims, and its own leases use that
    /// clock too.
    LeasesByOwnClock,
    /// A partition is dropped without a second look at the pending deliveries.
    PrunesWithoutSecondLook,
    /// A delivery that has not ended is replayed.
    ReplaysWhatIsOpen,
    /// A settlement holds even if another worker has claimed the delivery since.
    SettlesUnfenced,
    /// A preclaimed delivery is taken out of memory although another process has cancelled it,
    /// because nobody counts cancellations.
    TakesWhatHasEnded,
    /// A delivery that is claimed is made due, and its claim ends.
    TriesWhatIsClaimed,
}

impl Scope {
    fn deviates(&self, deviation: Deviation) -> bool {
        self.deviations.contains(&deviation)
    }

    fn allows(&self, command: Command) -> u8 {
        u8::from(self.commands.contains(&command))
    }

    fn is_ordered(&self) -> bool {
        self.shape == Shape::Ordered
    }

    /// Returns the number of the event of a delivery.
    fn event_of(&self, delivery: usize) -> usize {
        if self.shape == Shape::OneEvent { 0 } else { delivery }
    }

    /// Returns the number of the endpoint of a delivery.
    fn endpoint_of(&self, delivery: usize) -> usize {
        if self.shape == Shape::OneEvent { delivery } else { 0 }
    }

    fn events(&self) -> usize {
        if matches!(self.shape, Shape::One | Shape::OneEvent) { 1 } else { state::DELIVERIES }
    }

    fn deliveries_of(&self, event: usize) -> impl Iterator<Item = usize> {
        (0..state::DELIVERIES).filter(move |delivery| self.event_of(*delivery) == event)
    }
}
