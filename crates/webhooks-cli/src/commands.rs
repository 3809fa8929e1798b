//! The commands.

pub(crate) mod application;
pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod config;
mod confirm;
pub(crate) mod delivery;
mod delivery_list;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod endpoint;
pub(crate) mod event;
pub(crate) mod event_type;
mod follow;
mod job;
pub(crate) mod key;
pub(crate) mod publish;
pub(crate) mod serve;
pub(crate) mod trigger;
