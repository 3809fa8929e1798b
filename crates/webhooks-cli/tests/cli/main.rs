//! The program as a process: what it prints, how it ends, and what it leaves behind.

mod bench;
mod configuration;
mod demo;
mod doctor;
mod help;
mod program;
mod resources;
mod serving;
