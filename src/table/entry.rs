//! What goes into a table and comes out of it.

use std::marker::PhantomData;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU64;

use super::nets::Key;
use super::slot::Slot;
use crate::address::Subnet;
use crate::clock::UnixSeconds;

/// What a table stores of each entry, as a number of 32 bits that is not zero.
pub trait Value: Copy {
    /// As the number.
    fn into_number(self) -> u32;
    /// Back from a number that [`Value::into_number`] made.
    fn from_number(number: u32) -> Self;
}

/// The end of a ban.
impl Value for UnixSeconds {
    #[inline(always)]
    fn into_number(self) -> u32 {
        self.get()
    }

    #[inline(always)]
    fn from_number(number: u32) -> Self {
        UnixSeconds::new(number)
    }
}

/// An entry that a lookup found: one word, so that a lookup returns it in a register.
#[derive(Clone, Copy, Debug)]
pub struct Found<V = UnixSeconds>(NonZeroU64, PhantomData<V>);

impl<V: Value> Found<V> {
    /// An entry with this number, which is not zero; `None` if it is.
    #[inline]
    pub(super) fn new(number: u32, slot: Slot) -> Option<Self> {
        if number == 0 {
            return None;
        }
        let word = NonZeroU64::new(u64::from(number) << 32 | slot.index() as u64)?;
        Some(Found(word, PhantomData))
    }

    /// When the ban ends, or what else the table stores.
    #[inline]
    pub fn value(self) -> V {
        V::from_number((self.0.get() >> 32) as u32)
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
pub struct Entry<V = UnixSeconds> {
    /// What is listed.
    pub subnet: Subnet,
    /// When the ban ends, or what else the table stores.
    pub value: V,
    /// When it came.
    pub since: UnixSeconds,
    /// Packets it met.
    pub hits: u32,
    /// Why it is there; empty if the table keeps no reasons.
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

/// The IPv4 address that a subnet is, if it is one.
pub(super) fn host_address(subnet: Subnet) -> Option<u32> {
    match subnet.address() {
        IpAddr::V4(ip) if subnet.is_host() => Some(ip.to_bits()),
        _ => None,
    }
}
