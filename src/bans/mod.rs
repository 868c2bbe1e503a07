//! Bans: who is banned, the one place that bans and lifts, and what trust takes out again.

pub mod block;
pub mod check;
pub mod evict;
mod policy;

pub use block::{Bans, By, Order, Refusal, Wake, MAX_TTL};
pub use policy::Policy;

/// Return code of a script function that did what it was asked to do.
pub const DONE: i32 = 1;
/// Return code of a script function that had nothing to do, or was refused by trust.
pub const NOT_DONE: i32 = -1;
/// Return code of a script function with an argument that is no address, or no time to ban.
pub const BAD_ARGUMENT: i32 = -3;
