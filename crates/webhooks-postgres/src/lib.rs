#![doc = include_str!("../README.md")]

// Each file uses only files above it, so read from top to bottom. The order is that of use, not of
// time: `settle` comes before `claim` and `publish`, because these release claims through it.

// Errors, rows, and calls to the database.
mod error;

mod call;
mod row;

// The options, and the connections that they stand for.
mod connect;

mod options;

// Statements on endpoints, for several of the files below.
mod cancel_closed;
mod endpoint_row;

// The state of a store, and the pure parts that it is made of.
mod claim_state;
mod known_due;
mod local_queue;
mod membership;
mod share;

mod state;

// The path of a delivery. `publish` preclaims deliveries: it claims them in the statement that
// publishes them, and puts them into the local queues. `claim` asks these queues and the database.
mod publish_statement;
mod settle;

mod attach;

mod preclaim;

mod claim;
mod publish;

// All other calls.
mod endpoint_list;

mod endpoints;
mod expunge;
mod history;
mod jobs;
mod monitor;
mod operations;
mod reports;
mod retention;

mod replay;
mod try_now;

// The store, which runs the loops in `tasks` and `publish`.
mod migrate;
mod tasks;

mod import;

mod store;

mod open;

// Publishing in the caller's own transaction, which needs no store.
mod outbox;

// The public interface is:
pub use error::{OpenError, UnreadableEndpoint};
pub use import::{EndpointColumns, Import, ImportError, ImportState, LastNumbers};
pub use options::PostgresOptions;
pub use outbox::{PublishInError, publish_in};
pub use store::PostgresStore;
