//! The move of a store from a SQLite file to PostgreSQL: what is copied, how it is converted, and how it is checked.
//!
//! The rows are copied, and not the calls of the ports repeated: those give new numbers, times and states. Both
//! schemas are ours, and only the program stands above both. If a table or a column comes to one of them, the
//! migration refuses until it is in [`tables`].

// Each file uses only files above it.
mod copy_text;
mod table;

mod tables;

mod check;
mod job;
mod position;

mod batch;
mod schema;

mod source;

pub(crate) use batch::Batch;
pub(crate) use check::{Check, of_target, statement_of_target};
pub(crate) use position::Position;
pub(crate) use schema::{STATEMENT as TARGET_COLUMNS, check_target};
pub(crate) use source::{Source, SourceError};
