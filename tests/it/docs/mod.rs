//! The documents say what the code does.

mod readme;
mod security;
mod structure;
