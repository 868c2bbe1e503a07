//! The integration tests: one program, a folder for each part of the module.
//!
//! Each test picks its own ports, directories and network namespaces, so that they run at the same time: in
//! processes of their own under nextest, in threads of one process under `cargo test`. What must not be
//! shared by threads (forks, environment, capabilities) runs in a child process or in a program of its own
//! (`tests/table_processes`, `tests/chaos`, `tests/abi`).

mod cli;
mod cluster;
mod docs;
mod feed;
mod firewall;
mod fuzz;
mod process;
mod script;
mod support;
