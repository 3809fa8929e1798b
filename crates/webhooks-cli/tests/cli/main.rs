//! The program as a process: what it prints, how it ends, and what it leaves behind.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod backups;
mod bench;
mod configuration;
mod demo;
mod deploy;
mod doctor;
mod guide;
mod help;
mod listening;
mod migrating;
mod program;
mod receiver;
mod resources;
mod serving;
mod signing;
mod transfer;
