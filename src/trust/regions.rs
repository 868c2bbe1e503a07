//! The parts of the address space that ever held a trusted address. Most checks read one cache line of this and
//! need no search for a rule.
//!
//! A part is a first octet of IPv4, or one of 256 groups of IPv6 prefixes of 32 bits. It is marked before
//! the rule is there and stays marked after it went: a mark too many costs a search, one too few would
//! ban a trusted address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::{nat64, Subnet};
use crate::memory::{Arena, Line, Ordering, OutOfMemory};

/// One bit for each part.
#[derive(Clone, Copy)]
pub struct Regions {
    marks: &'static Line,
}

impl Regions {
    /// Nothing marked.
    pub fn new(arena: &mut dyn Arena) -> Result<Self, OutOfMemory> {
        Ok(Regions {
            marks: &arena.lines("the trusted addresses", 1)?[0],
        })
    }

    /// False if nothing that contains `ip` was ever trusted.
    #[inline(always)]
    pub fn have(&self, ip: IpAddr) -> bool {
        let region = match ip.to_canonical() {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => Self::of_v6(v6),
        };
        self.marks[region / 64].load(Ordering::Relaxed) >> (region % 64) & 1 != 0
    }

    /// Marks every part that `subnet` touches.
    pub fn mark(&self, subnet: Subnet) {
        let (first, last) = match (subnet.address(), subnet.prefix_len()) {
            (IpAddr::V4(v4), length @ 0..8) => {
                let first = Self::of_v4(v4);
                (first, first + (255 >> length))
            }
            (IpAddr::V4(v4), _) => (Self::of_v4(v4), Self::of_v4(v4)),
            (IpAddr::V6(_), 0..32) => (256, 511),
            (IpAddr::V6(v6), _) => (Self::of_v6(v6), Self::of_v6(v6)),
        };
        (first..=last).for_each(|region| self.mark_one(region));
        if subnet.is_v4() {
            // Its hosts may come through a translator.
            self.mark_one(Self::of_v6(nat64::REGION));
        }
    }

    fn mark_one(&self, region: usize) {
        self.marks[region / 64].fetch_or(1 << (region % 64), Ordering::Release);
    }

    #[inline]
    fn of_v4(ip: Ipv4Addr) -> usize {
        ip.octets()[0].into()
    }

    #[inline]
    fn of_v6(ip: Ipv6Addr) -> usize {
        // The eight highest bits of the product depend on all 32 of the prefix.
        256 + (((ip.to_bits() >> 96) as u32).wrapping_mul(0x9e37_79b1) >> 24) as usize
    }
}
