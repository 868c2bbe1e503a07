//! The parts of the address space that ever held a trusted address. Most checks read one cache line of this and
//! need no search for a rule.
//!
//! A part is an IPv4 network of 13 bits, or one of 256 groups of IPv6 prefixes of 32 bits. It is marked before
//! the rule is there and stays marked after it went: a mark too many costs a search, one too few would
//! ban a trusted address. With tens of carriers about one IPv4 address in a hundred is in a marked part.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::{nat64, Subnet, MIN_V4_PREFIX, MIN_V6_PREFIX};
use crate::memory::{Arena, AtomicU32, Ordering, OutOfMemory};

/// Prefix length of an IPv4 part: a word for each first octet, so that a check computes little.
const V4_LENGTH: u8 = 8 + 5;
/// Number of IPv4 parts.
const V4_PARTS: usize = 1 << V4_LENGTH;
/// Prefix length of the IPv6 prefixes that are grouped.
const V6_LENGTH: u8 = 32;
/// Number of groups of them.
const V6_PARTS: usize = 256;
/// Number of words.
const WORDS: usize = (V4_PARTS + V6_PARTS) / 32;

// `Trust::spares` counts on it: no prefix that may be banned lies in two parts.
const _: () = assert!(MIN_V4_PREFIX >= V4_LENGTH && MIN_V6_PREFIX >= V6_LENGTH);

/// One bit for each part: those of IPv4 in the order of the addresses, then the groups of IPv6.
#[derive(Clone, Copy)]
pub struct Regions {
    /// The compiler knows the length: no word is outside.
    marks: &'static [AtomicU32; WORDS],
}

impl Regions {
    /// Nothing marked.
    pub fn new(arena: &mut dyn Arena) -> Result<Self, OutOfMemory> {
        let words = arena.words("the trusted addresses", WORDS)?;
        let marks = words.try_into().expect("as many words as were asked for");
        Ok(Regions { marks })
    }

    /// False if nothing that contains `ip` was ever trusted.
    #[inline(always)]
    pub fn have(&self, ip: IpAddr) -> bool {
        let (word, bit) = match ip.to_canonical() {
            IpAddr::V4(v4) => {
                // What `of_v4` answers, in six instructions less.
                let [first, second, ..] = v4.octets();
                (first.into(), second >> (16 - V4_LENGTH))
            }
            IpAddr::V6(v6) => {
                let part = Self::of_v6(v6);
                (part / 32, (part % 32) as u8)
            }
        };
        self.marks[word].load(Ordering::Relaxed) >> bit & 1 != 0
    }

    /// Marks every part that `subnet` touches.
    pub fn mark(&self, subnet: Subnet) {
        let (first, last) = match (subnet.address(), subnet.prefix_len()) {
            (IpAddr::V4(v4), length) => {
                let first = Self::of_v4(v4);
                (first, first + ((V4_PARTS - 1) >> length.min(V4_LENGTH)))
            }
            (IpAddr::V6(_), 0..V6_LENGTH) => (V4_PARTS, V4_PARTS + V6_PARTS - 1),
            (IpAddr::V6(v6), _) => (Self::of_v6(v6), Self::of_v6(v6)),
        };
        (first..=last).for_each(|part| self.mark_one(part));
        if subnet.is_v4() {
            // Its hosts may come through a translator.
            self.mark_one(Self::of_v6(nat64::REGION));
        }
    }

    fn mark_one(&self, part: usize) {
        self.marks[part / 32].fetch_or(1 << (part % 32), Ordering::Release);
    }

    fn of_v4(ip: Ipv4Addr) -> usize {
        (ip.to_bits() >> (32 - V4_LENGTH)) as usize
    }

    #[inline(always)]
    fn of_v6(ip: Ipv6Addr) -> usize {
        // The eight highest bits of the product depend on all 32 of the prefix.
        V4_PARTS + (((ip.to_bits() >> 96) as u32).wrapping_mul(0x9e37_79b1) >> 24) as usize
    }
}
