//! A model of the store that workers share, explored to the end: every order of the steps of two
//! workers, two deliveries, an operator and a prune, with crashes, lost answers and lost leases.
//!
//! A step is a transaction of `webhooks-postgres` where that is one, and a statement or a change in
//! memory where it is not. The model knows what a transaction reads and writes, and nothing of SQL.
//! A promise is checked in each step, and from each state every run without further faults must come
//! to its end with everything settled.
//!
//! It leaves out the shares that workers have of endpoints, so that both may claim for an ordered
//! one; how workers are woken; crashes of the server; and replays of what was missed.

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

/// What is explored.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// What the deliveries are.
    pub shape: Shape,
    /// How many faults there may be: a crash, a lost answer, a lost lease, a step of a clock.
    pub faults: u8,
    /// Which commands an operator may give, each once; [`Command::Disable`] is followed by a
    /// registration.
    pub commands: &'static [Command],
    /// In what the store differs from what it should be.
    pub deviations: &'static [Deviation],
}

/// What the deliveries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "tests name them all")]
pub enum Shape {
    /// There is one.
    One,
    /// Those of one event, for two endpoints.
    OneEvent,
    /// Those of two events, for one endpoint.
    TwoEvents,
    /// Those of two events, for one ordered endpoint.
    Ordered,
}

/// What an operator, or retention, does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "tests name them all")]
pub enum Command {
    /// A delivery is cancelled.
    Cancel,
    /// An endpoint is disabled, and perhaps registered anew.
    Disable,
    /// Partitions are dropped.
    Prune,
    /// A delivery is replayed: it goes to the row that its endpoint has by then.
    Replay,
}

/// In what a store may differ from what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "tests name them all")]
pub enum Deviation {
    /// A claim takes what is leased.
    ClaimsIgnoreLeases,
    /// A claim finds the head of an ordered endpoint in one statement, and takes it in the next one,
    /// which does not look again.
    ClaimsInTwoStatements,
    /// What is handed over is marked with what its process knows of cancellations when it hears that
    /// it was published, and not with what it knew before.
    CountsWhenAnswered,
    /// A claim of which the answer was lost does not take what it claimed when it is made again.
    ForgetsLostClaims,
    /// What was claimed by a publication that the connection was lost in is not handed back if the
    /// next try met the transaction while it ran.
    ForgetsHeldPublications,
    /// What was claimed by a publication of which the answer was lost is not handed back.
    ForgetsLostPublications,
    /// What is left over for an endpoint that is gone stays.
    LeavesWhatIsGone,
    /// Leases are compared with the clock of the worker that claims, and its own go by it too.
    LeasesByOwnClock,
    /// A partition is dropped without a second look at what waits.
    PrunesWithoutSecondLook,
    /// What has not ended is replayed.
    ReplaysWhatIsOpen,
    /// A settlement holds whoever has claimed the delivery since.
    SettlesUnfenced,
    /// What was handed over is taken out of memory though another process has cancelled it, since
    /// nobody counts cancellations.
    TakesWhatHasEnded,
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
