#![doc = include_str!("../README.md")]

// Each file uses only files above it: from bottom to top.

// Errors, rows, and calls to the database.
mod error;

mod call;
mod row;

// The options, and the connections that they stand for.
mod connect;

mod options;

// Statements on endpoints, for several of the files below.
mod drain;
mod endpoint_row;

// The state of a store, and the pure parts that it is made of.
mod claim_state;
mod local_queue;
mod membership;
mod share;

mod state;

// The path of a delivery. `claim` asks the local queues, which `publish` fills, and the database.
mod publish_statement;
mod settle;

mod attach;

mod preclaim;

mod claim;
mod publish;

// All other calls.
mod endpoints;
mod history;
mod operations;
mod retention;

mod replay;

// The store, which has a task for each of the loops in `notify` and `publish`.
mod migrate;
mod notify;

mod store;

mod open;

// Publishing in the caller's own transaction, which needs no store.
mod outbox;

// The public interface is:
pub use error::{OpenError, UnreadableEndpoint};
pub use options::PostgresOptions;
pub use outbox::{PublishInError, publish_in};
pub use store::PostgresStore;
