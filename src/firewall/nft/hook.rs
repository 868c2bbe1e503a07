//! Where in the kernel's receive path our chain sits.

use super::uapi::{NFPROTO_INET, NF_INET_LOCAL_IN, NF_INET_PRE_ROUTING};

/// A place for a base chain; the writer makes the chain there and the reader looks for it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// Family of the table.
    pub family: u8,
    /// Number of the hook.
    pub number: u32,
    /// Priority among the chains of that hook; lower ones run first.
    pub priority: i32,
    /// Name of our chain.
    pub chain: &'static str,
}

/// `raw` in nft: before the chains of the operator: no rule of theirs can accept a banned source first. At
/// prerouting it is also before connection tracking (-200) but after its defragmentation (-400).
const PRIORITY_RAW: i32 = -300;

impl Hook {
    /// Before routing: a banned packet costs least, and forwarded ones are dropped too.
    pub const PREROUTING: Hook = Hook {
        family: NFPROTO_INET,
        number: NF_INET_PRE_ROUTING,
        priority: PRIORITY_RAW,
        chain: "prerouting",
    };
    /// Packets to this host only; connection tracking has run by then.
    pub const INPUT: Hook = Hook {
        family: NFPROTO_INET,
        number: NF_INET_LOCAL_IN,
        priority: PRIORITY_RAW,
        chain: "input",
    };
    /// Every place that a version of ours has used.
    pub const ALL: [Hook; 2] = [Hook::PREROUTING, Hook::INPUT];
}
