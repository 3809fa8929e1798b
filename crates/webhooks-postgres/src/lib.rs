#![doc = include_str!("../README.md")]

// Each file uses only files above it: from bottom to top.

// what all calls to the database need
mod error;

mod call;
mod row;

mod connect;
mod drain;
mod endpoint_row;
mod options;

// the state, and the pure parts that it is made of
mod claim_state;
mod local_queue;
mod membership;
mod share;

mod state;

// the path of an event: published, claimed, settled
mod publish_statement;
mod settle;

mod attach;

mod preclaim;

mod claim;
mod publish;

// all other calls
mod endpoints;
mod history;
mod operations;
mod retention;

mod replay;

// the store
mod migrate;
mod notify;

mod store;

mod open;

// the outbox in SQL, which needs no store
mod outbox;

// The public interface is:
pub use error::{OpenError, UnreadableEndpoint};
pub use options::PostgresOptions;
pub use outbox::{PublishInError, publish_in};
pub use store::PostgresStore;
