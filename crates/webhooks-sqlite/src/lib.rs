#![doc = include_str!("../README.md")]

mod endpoints;
mod error;
mod history;
mod limit;
mod load;
mod migrate;
mod open;
mod operations;
mod publish;
mod readers;
mod refill;
mod replay;
mod retention;
mod row;
mod settle;
mod store;
mod tables;
mod troubles;
mod writer;

// The public interface is:
pub use error::OpenError;
pub use open::SqliteOptions;
pub use store::SqliteStore;
#[cfg(feature = "sabotage")]
pub use writer::manual::ManualWriter;
