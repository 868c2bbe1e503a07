//! Everything that speaks C with Kamailio. Beside `sys` the only folder with unsafe code.
//!
//! What Kamailio may call is listed in [`exports`]. Every such function is a panic boundary
//! ([`guard`]), turns what it is given into owned or borrowed Rust data, and calls inward; nothing
//! outside this folder calls in here. Three facts carry most of the `SAFETY` comments below:
//!
//! - Kamailio's processes have one thread, or call into modules from one thread only; the threads of
//!   the updater never call in here.
//! - What is set up before the fork (configuration, shared memory, tables for the core) is never freed
//!   and never changed afterwards, except through atomics.
//! - Structures are read only where `tests/abi` has compared them with the real headers of every
//!   release that [`load`] accepts.

#![allow(unsafe_code)]

mod arguments;
mod bindings;
mod child;
mod cluster;
mod dmq;
mod events;
mod exports;
mod fast_path;
mod fixups;
mod guard;
mod lifecycle;
mod load;
mod log;
mod module;
mod other_modules;
mod own;
mod packet;
mod params;
mod pvar;
mod rpc;
mod script;
mod sockets;
mod statistics;
mod tables;
mod text;
mod updater;
mod variables;
