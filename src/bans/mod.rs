//! Bans: who is banned, the one place that bans and lifts, and what trust takes out again.

pub mod block;
pub mod check;
mod codes;
pub mod evict;
mod policy;

pub use block::{Bans, By, Order, Refusal, Wake, MAX_TTL};
pub use codes::{BAD_ARGUMENT, DONE, NOT_DONE};
pub use policy::Policy;
