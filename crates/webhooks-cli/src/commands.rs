//! The commands.

pub(crate) mod application;
pub(crate) mod completions;
pub(crate) mod config;
mod confirm;
pub(crate) mod delivery;
pub(crate) mod endpoint;
pub(crate) mod event;
pub(crate) mod event_type;
mod job;
pub(crate) mod key;
pub(crate) mod listen;
pub(crate) mod publish;
pub(crate) mod serve;
pub(crate) mod sign;
pub(crate) mod verify;
