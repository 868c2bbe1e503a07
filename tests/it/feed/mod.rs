//! The feed, from the service over HTTP to the tables and the state file.

mod faults;
mod http;
mod list;
mod state_file;
mod states;
