#![doc = include_str!("../README.md")]

// The way of an event: `store` sends a `publish` to the `writer`, which commits it in a group and then
// adds the deliveries to the backlog in `inner`. `store` claims them from there. A `settle` records
// each outcome and removes the claim. `retention` deletes the event when it is old.
//
// Each file uses only files above it, so read from top to bottom.

// Errors, and values of rows.
mod error;
mod row;

// The file, and connections to it.
mod file;
mod limit;
mod migrate;

mod connection;

mod readers;

// The state that callers and the writer share.
mod deferred_errors;
mod job_leases;

mod inner;

// The connection that writes, with the writer's memory.
mod figure_book;
mod guard;
mod inserter;
mod retention_search;

mod write_connection;

// The thread that writes.
mod command;

mod refill;

mod writer;

// Commands to it.
mod endpoints;

mod publish;

mod settle;

mod transaction;

mod delivery_row;

mod operations;

mod expunge;

mod replay;

mod try_now;

mod reserved_log;
mod retention;

mod roll_up;

mod checkpoint;

// The store.
mod store;

mod ports;

mod history;

mod jobs;

mod monitor;

// Opening and closing it.
mod options;

mod load;

mod open;

mod inspect;
// Copies of the file.
mod backup;

mod snapshot;

#[cfg(feature = "sabotage")]
mod manual;

// The public interface is:
pub use backup::{BackupError, Existing, backup, restore};
pub use error::{OpenError, PublishInError, TransactionError};
pub use inspect::{Inspection, inspect};
#[cfg(feature = "sabotage")]
pub use manual::ManualWriter;
pub use options::SqliteOptions;
pub use rusqlite;
pub use snapshot::Snapshot;
pub use store::SqliteStore;
pub use transaction::Transaction;
