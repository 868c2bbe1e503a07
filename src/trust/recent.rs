//! The trusted IPv4 addresses that one process met last: the next check of such an address needs no search.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Trust;

/// A power of two. An edge has tens of carriers; two that share a slot only cost a search each.
const SLOTS: usize = 256;

/// The addresses, in memory of one process. Each is kept with the state of the trust set in which it was found
/// trusted ([`Trust::generation`]) and counts only in that state.
pub struct Recent([AtomicU64; SLOTS]);

impl Recent {
    /// Holds nothing: no set has the generation 0.
    pub const fn new() -> Self {
        Recent([const { AtomicU64::new(0) }; SLOTS])
    }

    /// True if `ip` was found trusted and no rule was removed since.
    #[inline(always)]
    pub fn trusts(&self, trust: &Trust, ip: Ipv4Addr) -> bool {
        self.slot(ip).load(Ordering::Relaxed) == pack(trust.generation(), ip)
    }

    /// Keeps `ip`, found trusted by a search that began after `generation` was read.
    pub fn keep(&self, generation: u32, ip: Ipv4Addr) {
        self.slot(ip).store(pack(generation, ip), Ordering::Relaxed);
    }

    #[inline(always)]
    fn slot(&self, ip: Ipv4Addr) -> &AtomicU64 {
        // The highest bits of the product depend on all 32 of the address.
        let hash = ip.to_bits().wrapping_mul(0x9e37_79b1) >> (32 - SLOTS.trailing_zeros());
        &self.0[hash as usize % SLOTS]
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self::new()
    }
}

#[inline(always)]
fn pack(generation: u32, ip: Ipv4Addr) -> u64 {
    u64::from(generation) << 32 | u64::from(ip.to_bits())
}
