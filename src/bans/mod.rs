//! Bans: the check, the functions that place and lift a ban, and the removal of bans that trust ends.

pub mod block;
pub mod check;
mod codes;
pub mod evict;
mod policy;

pub use block::{Bans, By, Order, Refusal, Wake, MAX_TTL};
pub use codes::{BAD_ARGUMENT, DONE, NOT_DONE};
pub use policy::Policy;
