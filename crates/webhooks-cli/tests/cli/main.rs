//! The program as a process: what it prints, how it ends, and what it leaves behind.

mod configuration;
mod help;
mod listening;
mod program;
mod resources;
mod serving;
mod signing;
