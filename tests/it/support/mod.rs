//! The tests' own tools on trial.

mod harness;
