//! The program as a process: what it prints, how it ends, and what it leaves behind.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod bench;
mod configuration;
mod demo;
mod doctor;
mod guide;
mod help;
mod program;
mod receiver;
mod resources;
mod serving;
