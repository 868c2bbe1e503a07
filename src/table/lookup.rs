//! Searches: the hot path, and everything that it leaves open.

use std::net::IpAddr;

use super::entry::{host_address, key_of};
use super::nets::Key;
use super::{Found, Further, Table, Value, V4_PREFIXES, V6_PREFIXES};
use crate::address::Subnet;
use crate::clock::UnixSeconds;
use crate::memory::Ordering;

impl Table {
    /// The entry that covers `ip` and ends after `now`: the address itself, then the prefixes in use.
    #[inline(always)]
    pub fn lookup(&self, ip: IpAddr, now: UnixSeconds) -> Option<Found> {
        self.lookup_above(ip, now.get())
    }

    /// What one line says of an IPv4 address, which almost always is the answer: an entry that ends after `now`, or
    /// none. The error says that [`Table::lookup`] may find one elsewhere.
    #[inline(always)]
    pub fn lookup_fast(
        &self,
        bits: u32,
        now: impl Fn() -> UnixSeconds,
    ) -> Result<Option<Found>, Further> {
        self.lookup_line(bits, || now().get())
    }
}

impl<V: Value> Table<V> {
    /// The entry that covers `ip`: the address itself, then the prefixes in use. An entry that ended counts, too.
    #[inline(always)]
    pub fn covering(&self, ip: IpAddr) -> Option<Found<V>> {
        self.lookup_above(ip, 0)
    }

    /// The entry with a number above `floor` that covers `ip`.
    #[inline(always)]
    fn lookup_above(&self, ip: IpAddr, floor: u32) -> Option<Found<V>> {
        match ip.to_canonical() {
            IpAddr::V4(v4) => match self.lookup_line(v4.to_bits(), || floor) {
                Ok(found) => found,
                Err(further) => self.lookup_further(v4.to_bits(), further, floor),
            },
            IpAddr::V6(v6) => self.lookup_v6(v6.to_bits(), floor),
        }
    }

    /// See [`Table::lookup_fast`].
    #[inline(always)]
    fn lookup_line(&self, bits: u32, floor: impl Fn() -> u32) -> Result<Option<Found<V>>, Further> {
        if self.is_empty() {
            return Ok(None);
        }
        let hash = self.hash_host(bits);
        let (found, more) = self.hosts.lookup_fast(bits, hash, floor);
        if let Some((slot, number)) = found {
            return Ok(Found::new(number, slot));
        }
        if more {
            return Err(Further::Hosts(hash));
        }
        if self.header[V4_PREFIXES].load(Ordering::Relaxed) != 0 {
            return Err(Further::Prefixes);
        }
        Ok(None)
    }

    #[inline(never)]
    fn lookup_further(&self, bits: u32, further: Further, floor: u32) -> Option<Found<V>> {
        if let Further::Hosts(hash) = further {
            if let Some((slot, value)) = self.hosts.lookup(bits, hash, floor) {
                return Found::new(value, slot);
            }
        }
        if self.header[V4_PREFIXES].load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.lookup_lengths(0xffff << 32 | u128::from(bits), true, floor)
    }

    #[inline(never)]
    fn lookup_v6(&self, bits: u128, floor: u32) -> Option<Found<V>> {
        if self.header[V6_PREFIXES].load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.lookup_lengths(bits, false, floor)
    }

    /// One probe for each length in use; `bits` in the form of [`Key`].
    #[inline(never)]
    fn lookup_lengths(&self, bits: u128, is_v4: bool, floor: u32) -> Option<Found<V>> {
        self.lengths.find(is_v4, |length| {
            let length = if is_v4 { length + 96 } else { length };
            let key = Key {
                bits: bits & (u128::MAX << (128 - u32::from(length))),
                length,
            };
            let (slot, value) = self.nets.lookup(key, self.hash_net(key), floor)?;
            Found::new(value, self.after_hosts(slot))
        })
    }

    /// The entry for exactly this address or prefix, ended or not.
    pub fn find(&self, subnet: Subnet) -> Option<Found<V>> {
        if let Some(address) = host_address(subnet) {
            let (slot, value) = self.hosts.lookup(address, self.hash_host(address), 0)?;
            return Found::new(value, slot);
        }
        let key = key_of(subnet);
        let (slot, value) = self.nets.lookup(key, self.hash_net(key), 0)?;
        Found::new(value, self.after_hosts(slot))
    }
}
