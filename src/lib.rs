//! `apiban.so`: a Kamailio module that keeps what APIBAN lists, and what the script bans, away from
//! the SIP workers.
//!
//! Two flows meet in shared memory. The updater process fetches the list and writes the ban tables;
//! the SIP workers read them and queue bans of their own. Everything but `kamailio` is safe Rust
//! that knows nothing of Kamailio and is tested without it.

// The model checker gets buckets of one slot, which makes the index of a slot a number modulo one.
#![cfg_attr(loom, allow(clippy::modulo_one))]

pub mod address;
pub mod bans;
pub mod base_url;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod feed;
pub mod firewall;
pub mod log;
pub mod member;
pub mod memory;
pub mod quote;
pub mod rpc;
pub mod script;
pub mod shared;
pub mod state;
pub mod statistics;
pub mod sys;
pub mod table;
pub mod trust;
pub mod updater;
pub mod wake;

#[cfg(feature = "cli")]
pub mod cli;

#[cfg(feature = "module")]
mod kamailio;
