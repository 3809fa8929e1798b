#![doc = include_str!("../README.md")]

// Each file uses only files above it: from bottom to top.

// errors, and values of rows
mod error;
mod row;

// the file, and connections to it
mod file;
mod limit;
mod migrate;

mod connection;

mod readers;

// the state that callers and the writer share
mod deferred_errors;

mod inner;

// the connection that writes
mod inserter;
mod retention_search;

mod write_connection;

// the thread that writes
mod command;
mod refill;

mod writer;

// commands to it
mod delivery_row;

mod checkpoint;
mod endpoints;
mod operations;
mod publish;
mod replay;
mod retention;
mod settle;

// the store
mod store;

mod history;

// opening it
mod load;
mod options;

mod open;

#[cfg(feature = "sabotage")]
mod manual;

// The public interface is:
pub use error::OpenError;
#[cfg(feature = "sabotage")]
pub use manual::ManualWriter;
pub use options::SqliteOptions;
pub use store::SqliteStore;
