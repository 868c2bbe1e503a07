//! `apiban.so`: a Kamailio module that keeps what APIBAN lists, and what the script bans, away from
//! the SIP workers.
//!
//! Two flows meet in shared memory. The updater process fetches the list and writes the ban tables;
//! the SIP workers read them and queue bans of their own. Everything but `kamailio` is safe Rust
//! that knows nothing of Kamailio and is tested without it.

// The model checker gets buckets of one slot, which makes the index of a slot a number modulo one.
#![cfg_attr(loom, allow(clippy::modulo_one))]

pub mod address;
pub mod ban;
pub mod check;
pub mod clock;
pub mod config;
pub mod feed;
pub mod firewall;
pub mod log;
pub mod restore;
pub mod rpc;
pub mod shared;
pub mod sources;
pub mod state;
pub mod stats;
pub mod table;
pub mod trust;
pub mod updater;
pub mod uri;

mod kamailio;
