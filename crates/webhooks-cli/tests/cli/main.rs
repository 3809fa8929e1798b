//! The program as a process: what it prints, how it ends, and what it leaves behind.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod backups;
mod bench;
mod configuration;
mod deliveries;
mod demo;
mod deploy;
mod doctor;
mod events;
mod guide;
mod help;
mod inspecting;
mod listener;
mod listening;
mod machines;
mod migrating;
mod program;
mod receiver;
mod reporting;
mod resources;
mod serving;
mod signing;
mod tailing;
mod tls;
mod transfer;
mod waiting;
