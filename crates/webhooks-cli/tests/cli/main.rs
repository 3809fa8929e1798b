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
mod fake_service;
mod full_disk;
mod guide;
mod help;
mod hostile;
mod inspecting;
mod interrupted;
mod listener;
mod listening;
mod machines;
mod migrating;
mod program;
mod receiver;
mod reporting;
mod resources;
mod second_copy;
mod serving;
mod signing;
mod snapshots;
mod tailing;
mod terminal;
mod tls;
mod tmux;
mod transfer;
mod tree;
mod waiting;
mod walk;
