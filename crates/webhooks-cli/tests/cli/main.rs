//! The program as a process: what it prints, how it ends, and what it leaves behind.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod backups;
mod bench;
mod configuration;
mod demo;
mod deploy;
mod doctor;
mod fake_service;
mod full_disk;
mod guide;
mod help;
mod hostile;
mod interrupted;
mod listening;
mod program;
mod receiver;
mod resources;
mod second_copy;
mod serving;
mod signing;
mod snapshots;
mod terminal;
mod tmux;
mod transfer;
mod tree;
mod walk;
