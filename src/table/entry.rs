//! What goes into a table and comes out of it.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU64;

use super::nets::Key;
use super::slot::Slot;
use crate::address::Subnet;

/// An entry that a lookup found: one word, so that a lookup returns it in a register.
#[derive(Clone, Copy, Debug)]
pub struct Found(NonZeroU64);

impl Found {
    /// An entry with this value, which is not zero; `None` where it is.
    #[inline]
    pub(super) fn new(value: u32, slot: Slot) -> Option<Self> {
        if value == 0 {
            return None;
        }
        NonZeroU64::new(u64::from(value) << 32 | slot.index() as u64).map(Found)
    }

    /// The Unix second at which the ban ends, or what the owner of the table stored.
    #[inline]
    pub fn value(self) -> u32 {
        (self.0.get() >> 32) as u32
    }

    /// Its slot, as the table counts them.
    #[inline]
    pub(super) fn slot(self) -> Slot {
        Slot::new(self.0.get() as u32 as usize)
    }
}

/// Where the answer may be that the first cache line did not give.
#[derive(Clone, Copy, Debug)]
pub enum Further {
    /// Among the hosts, under this hash; then among the prefixes.
    Hosts(u64),
    /// Among the prefixes.
    Prefixes,
}

/// Everything known of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is listed.
    pub subnet: Subnet,
    /// The Unix second at which the ban ends.
    pub value: u32,
    /// The Unix second at which it came.
    pub since: u32,
    /// Packets it met.
    pub hits: u32,
    /// Why it is there; empty where the table keeps no reasons.
    pub reason: String,
    /// The node of the cluster that it came from, by its number here; 0: none.
    pub node: u16,
}

/// What an insert did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// A new entry.
    New,
    /// The entry was there and now ends later.
    Extended,
    /// The entry was there and ends later anyway.
    Kept,
    /// No room; nothing was changed.
    Full,
}

/// The key of a subnet among the prefixes.
pub(super) fn key_of(subnet: Subnet) -> Key {
    match subnet.address() {
        IpAddr::V4(ip) => Key {
            bits: ip.to_ipv6_mapped().to_bits(),
            length: subnet.prefix_len() + 96,
        },
        IpAddr::V6(ip) => Key {
            bits: ip.to_bits(),
            length: subnet.prefix_len(),
        },
    }
}

/// The subnet of a key; `None` for a key that no subnet has.
pub(super) fn subnet_of(key: Key) -> Option<Subnet> {
    Subnet::new(IpAddr::V6(Ipv6Addr::from_bits(key.bits)), key.length)
}

/// The IPv4 address that a subnet is, where it is one.
pub(super) fn host_address(subnet: Subnet) -> Option<u32> {
    match subnet.address() {
        IpAddr::V4(ip) if subnet.is_host() => Some(ip.to_bits()),
        _ => None,
    }
}
