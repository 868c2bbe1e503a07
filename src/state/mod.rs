//! What survives a restart: the state file, the way back from it, and when it is written.

mod file;
pub mod loans;
pub mod lock;
mod other_lists;
pub mod restore;
pub mod writer;

pub use file::{decode, encode, load, put_aside, store, Aside, Ban, LoadError, State};
