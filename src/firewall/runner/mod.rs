//! Runs a backend.
