//! The commands.

pub(crate) mod application;
pub(crate) mod backup;
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
pub(crate) mod export;
mod follow;
pub(crate) mod import;
mod job;
pub(crate) mod key;
pub(crate) mod listen;
pub(crate) mod migrate_store;
pub(crate) mod publish;
pub(crate) mod restore;
pub(crate) mod serve;
pub(crate) mod sign;
pub(crate) mod trigger;
pub(crate) mod verify;
