//! Who is banned: the check of a source, the rules for a ban, and what trust takes out again.

pub mod block;
pub mod check;
pub mod evict;
