#![doc = include_str!("../README.md")]

mod claim;
mod connect;
mod endpoints;
mod error;
mod hand_over;
mod handed;
mod history;
mod migrate;
mod notify;
mod open;
mod operations;
mod outbox;
mod publication;
mod publish;
mod replay;
mod retention;
mod row;
mod settle;
mod share;
mod store;
mod workers;

// The public interface is:
pub use error::{OpenError, UnreadableEndpoint};
pub use open::PostgresOptions;
pub use outbox::{PublishInError, publish_in};
pub use store::PostgresStore;
