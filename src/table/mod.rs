//! The ban table: addresses and prefixes with an end, in memory shared by all processes.
//!
//! It knows nothing of Kamailio. IPv4 addresses stand in `hosts`, seven to a cache line; IPv6 and
//! prefixes in `nets`. The value of an entry is the Unix second at which it ends, so that key and
//! end are always read and written together. Trust uses the same table with another value.

mod buckets;
mod details;
mod entry;
mod hosts;
mod nets;

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

use foldhash::fast::FixedState;

use crate::address::Subnet;
use crate::memory::{fence, Arena, Line, Ordering, OutOfMemory};
use buckets::Buckets;
use details::Details;
pub use details::REASON_MAX;
use entry::{host_address, key_of, subnet_of};
pub use entry::{Entry, Found, Further, Inserted};
use hosts::{Hosts, Placed, Raise, Slot};
use nets::{Key, Nets};

/// Longest ban in seconds: ten years.
pub const MAX_TTL: u32 = 315_360_000;

/// Buckets are this full, in percent, when a table holds as many entries as it may.
const LOAD_PERCENT: usize = 60;

// Words of the header line.
const COUNT: usize = 0;
const V4_LENGTHS: usize = 1;
const V6_LENGTHS: usize = 2; // and the next
const EARLIEST: usize = 4;

/// A table of addresses and prefixes.
#[derive(Clone)]
pub struct Table {
    header: &'static Line,
    hosts: Hosts,
    nets: Nets,
    details: Details,
    hasher: FixedState,
    capacity: usize,
}

impl Table {
    /// A table for `capacity` entries of either family. `seed` keys the hash: who chooses addresses
    /// must not know it. `purpose` names the table where memory cannot be had.
    pub fn new(
        arena: &mut dyn Arena,
        purpose: &'static str,
        capacity: usize,
        seed: u64,
        reasons: bool,
    ) -> Result<Self, OutOfMemory> {
        let room = capacity.max(1) * 100 / LOAD_PERCENT;
        let hosts = Hosts::new(Buckets::new(
            arena.lines(purpose, room.div_ceil(hosts::SLOTS))?,
        ));
        let nets = Nets::new(Buckets::new(
            arena.lines(purpose, room.div_ceil(nets::SLOTS))?,
        ));
        let header = arena.lines(purpose, 1)?;
        Ok(Table {
            header: &header[0],
            details: Details::new(arena, purpose, hosts.slots() + nets.slots(), reasons)?,
            hosts,
            nets,
            hasher: FixedState::with_seed(seed),
            capacity,
        })
    }

    /// Makes the pages for IPv4 addresses exist, so that the first inserts do not pay for them. To be
    /// called where nobody waits; a table of 65,536 entries takes 1.5 MB so.
    pub fn prepare(&self) {
        self.hosts.prepare();
        self.details.prepare(self.hosts.slots());
    }

    /// How many entries it may hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many entries it holds, those included that ended and were not yet swept.
    pub fn len(&self) -> usize {
        self.header.0[COUNT].load(Ordering::Relaxed) as usize
    }

    /// True where it holds nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.header.0[COUNT].load(Ordering::Relaxed) == 0
    }

    /// The entry with a value above `now` that covers `ip`: the address itself, then the prefixes in use.
    #[inline(always)]
    pub fn lookup(&self, ip: IpAddr, now: u32) -> Option<Found> {
        match ip.to_canonical() {
            IpAddr::V4(v4) => match self.lookup_fast(v4.to_bits(), || now) {
                Ok(found) => found,
                Err(further) => self.lookup_further(v4.to_bits(), further, now),
            },
            IpAddr::V6(v6) => self.lookup_v6(v6.to_bits(), now),
        }
    }

    /// What one line says of an IPv4 address, which almost always is the answer: an entry above `now`, or
    /// none. The error says that [`Table::lookup`] may find one elsewhere.
    #[inline(always)]
    pub fn lookup_fast(&self, bits: u32, now: impl Fn() -> u32) -> Result<Option<Found>, Further> {
        if self.is_empty() {
            return Ok(None);
        }
        let hash = self.hash_host(bits);
        let (found, more) = self.hosts.lookup_fast(bits, hash, now);
        if let Some((slot, value)) = found {
            return Ok(Found::new(value, slot));
        }
        if more {
            return Err(Further::Hosts(hash));
        }
        if self.header.0[V4_LENGTHS].load(Ordering::Relaxed) != 0 {
            return Err(Further::Prefixes);
        }
        Ok(None)
    }

    #[inline(never)]
    fn lookup_further(&self, bits: u32, further: Further, now: u32) -> Option<Found> {
        if let Further::Hosts(hash) = further {
            if let Some((slot, value)) = self.hosts.lookup(bits, hash, now) {
                return Found::new(value, slot);
            }
        }
        let lengths = self.header.0[V4_LENGTHS].load(Ordering::Relaxed);
        self.lookup_lengths(0xffff << 32 | u128::from(bits), 96, lengths, now)
    }

    #[inline(never)]
    fn lookup_v6(&self, bits: u128, now: u32) -> Option<Found> {
        if self.is_empty() {
            return None;
        }
        // The longest first: hosts and /64 stand in the second word.
        let long = self.header.0[V6_LENGTHS + 1].load(Ordering::Relaxed);
        let short = self.header.0[V6_LENGTHS].load(Ordering::Relaxed);
        self.lookup_lengths(bits, 64, long, now)
            .or_else(|| self.lookup_lengths(bits, 0, short, now))
    }

    /// One probe for each length in `lengths`; bit `n` stands for a prefix of `base + n + 1` bits.
    #[inline(never)]
    fn lookup_lengths(&self, bits: u128, base: u8, mut lengths: u64, now: u32) -> Option<Found> {
        while lengths != 0 {
            let bit = 63 - lengths.leading_zeros() as u8;
            lengths &= !(1 << bit);
            let length = base + bit + 1;
            let key = Key {
                bits: bits & (u128::MAX << (128 - u32::from(length))),
                length,
            };
            if let Some((slot, value)) = self.nets.lookup(key, self.hash_net(key), now) {
                return Found::new(value, self.after_hosts(slot));
            }
        }
        None
    }

    /// The entry for exactly this address or prefix, ended or not.
    pub fn find(&self, subnet: Subnet) -> Option<Found> {
        if let Some(address) = host_address(subnet) {
            let (slot, value) = self.hosts.lookup(address, self.hash_host(address), 0)?;
            return Found::new(value, slot);
        }
        let key = key_of(subnet);
        let (slot, value) = self.nets.lookup(key, self.hash_net(key), 0)?;
        Found::new(value, self.after_hosts(slot))
    }

    /// Counts one packet that met the entry.
    #[inline]
    pub fn hit(&self, found: Found) {
        self.details.hit(found.slot());
    }

    /// Everything known of a found entry; `None` where its slot has been reused meanwhile.
    pub fn entry(&self, found: Found) -> Option<Entry> {
        let slot = found.slot();
        let (subnet, value) = match slot.index().checked_sub(self.hosts.slots()) {
            None => {
                let (address, value) = self.hosts.entry(slot)?;
                (Subnet::host(IpAddr::V4(address.into())), value)
            }
            Some(index) => {
                let (key, value) = self.nets.entry(Slot::new(index))?;
                (subnet_of(key)?, value)
            }
        };
        Some(self.describe(subnet, value, slot))
    }

    /// The slot of a prefix, as the table counts them.
    #[inline]
    fn after_hosts(&self, slot: Slot) -> Slot {
        Slot::new(self.hosts.slots() + slot.index())
    }

    /// Adds an entry, or lets the longer end win. `value` is not zero; `since` in Unix seconds.
    pub fn insert(&self, subnet: Subnet, value: u32, since: u32, reason: &str) -> Inserted {
        loop {
            if let Some(known) = self.raise(subnet, value, reason) {
                return known;
            }
            let count = &self.header.0[COUNT];
            if count.fetch_add(1, Ordering::AcqRel) >= self.capacity as u64 {
                count.fetch_sub(1, Ordering::AcqRel);
                return Inserted::Full;
            }
            let placed = self.place(subnet, value);
            if let Placed::At(slot) = placed {
                self.details.begin(slot, since, reason);
                self.lower_mark(value);
                return Inserted::New;
            }
            count.fetch_sub(1, Ordering::AcqRel);
            if placed == Placed::Full {
                return Inserted::Full;
            }
        }
    }

    fn raise(&self, subnet: Subnet, value: u32, reason: &str) -> Option<Inserted> {
        let raised = match host_address(subnet) {
            Some(address) => self.hosts.raise(address, self.hash_host(address), value)?,
            None => {
                let key = key_of(subnet);
                match self.nets.raise(key, self.hash_net(key), value)? {
                    Raise::Raised(slot) => Raise::Raised(self.after_hosts(slot)),
                    kept => kept,
                }
            }
        };
        let Raise::Raised(slot) = raised else {
            return Some(Inserted::Kept);
        };
        if !reason.is_empty() {
            self.details.set_reason(slot, reason);
        }
        Some(Inserted::Extended)
    }

    fn place(&self, subnet: Subnet, value: u32) -> Placed {
        if let Some(address) = host_address(subnet) {
            return self.hosts.place(address, self.hash_host(address), value);
        }
        // Before the entry is there: who sees the entry probes for its length.
        self.use_length(subnet);
        let key = key_of(subnet);
        match self.nets.place(key, self.hash_net(key), value) {
            Placed::At(slot) => Placed::At(self.after_hosts(slot)),
            other => other,
        }
    }

    /// BanChanges the end of a new entry for [`Table::expire`].
    fn lower_mark(&self, value: u32) {
        // Pairs with the fence in `expire`: the sweep sees the entry, or this sees the mark it raised.
        fence(Ordering::SeqCst);
        let mark = &self.header.0[EARLIEST];
        if mark.load(Ordering::Relaxed) > u64::from(value) {
            mark.fetch_min(u64::from(value), Ordering::Relaxed);
        }
    }

    /// A length once used stays in use until the table is emptied: clearing its bit while another
    /// process inserts could hide that entry.
    fn use_length(&self, subnet: Subnet) {
        let (word, bit) = match (subnet.is_v4(), subnet.prefix_len()) {
            (_, 0) => return,
            (true, length) => (V4_LENGTHS, length - 1),
            (false, length) if length <= 64 => (V6_LENGTHS, length - 1),
            (false, length) => (V6_LENGTHS + 1, length - 65),
        };
        self.header.0[word].fetch_or(1 << bit, Ordering::AcqRel);
    }

    /// Overwrites the value of an entry that exists, higher or lower; false where there is none.
    pub fn replace(&self, subnet: Subnet, value: u32) -> bool {
        match host_address(subnet) {
            Some(address) => self.hosts.replace(address, self.hash_host(address), value),
            None => {
                let key = key_of(subnet);
                self.nets.replace(key, self.hash_net(key), value)
            }
        }
    }

    /// Removes exactly this address or prefix; false where it was not there.
    pub fn remove(&self, subnet: Subnet) -> bool {
        let removed = match host_address(subnet) {
            Some(address) => self.hosts.remove(address, self.hash_host(address)),
            None => {
                let key = key_of(subnet);
                self.nets.remove(key, self.hash_net(key))
            }
        };
        self.header.0[COUNT].fetch_sub(removed as u64, Ordering::AcqRel);
        removed > 0
    }

    /// Removes what ended at or before `now` and shows each to `ended`. Costs nothing before the
    /// earliest end. One process at a time may call this.
    pub fn expire(&self, now: u32, mut ended: impl FnMut(Entry)) {
        if self.is_empty() || self.header.0[EARLIEST].load(Ordering::Relaxed) > u64::from(now) {
            return;
        }
        self.header.0[EARLIEST].store(u64::MAX, Ordering::Relaxed);
        // Pairs with the fence in `lower_mark`.
        fence(Ordering::SeqCst);
        let mut earliest = u64::MAX;
        self.sweep(
            |subnet, value, slot| {
                if value > now {
                    earliest = earliest.min(u64::from(value));
                    return None;
                }
                Some(self.describe(subnet, value, slot))
            },
            |entry| {
                // Not where a copy that ends later is left, or somebody just banned it anew.
                if self.find(entry.subnet).is_none() {
                    ended(entry);
                }
            },
        );
        self.header.0[EARLIEST].fetch_min(earliest, Ordering::Relaxed);
    }

    /// Removes the entries for which `keep` says no; returns how many went.
    pub fn retain(&self, mut keep: impl FnMut(Subnet, u32) -> bool) -> usize {
        self.sweep(
            |subnet, value, _| (!keep(subnet, value)).then_some(()),
            drop,
        )
    }

    /// Shows every entry once, in no order.
    pub fn for_each(&self, mut visit: impl FnMut(Entry)) {
        self.sweep(
            |subnet, value, slot| {
                // Of two copies (see `hosts`) the one that a search finds.
                if self.find(subnet).is_none_or(|found| found.slot() == slot) {
                    visit(self.describe(subnet, value, slot));
                }
                None
            },
            |()| (),
        );
    }

    fn sweep<T>(
        &self,
        mut judge: impl FnMut(Subnet, u32, Slot) -> Option<T>,
        mut gone: impl FnMut(T),
    ) -> usize {
        if self.is_empty() {
            return 0;
        }
        let mut removed = self.hosts.sweep(
            |address| self.hash_host(address),
            |address, value, slot| judge(Subnet::host(IpAddr::V4(address.into())), value, slot),
            &mut gone,
        );
        let lengths = &self.header.0[V4_LENGTHS..=V6_LENGTHS + 1];
        // No look at memory that was never touched.
        if lengths.iter().any(|word| word.load(Ordering::Relaxed) != 0) {
            removed += self.nets.sweep(
                |key| self.hash_net(key),
                |key, value, slot| judge(subnet_of(key)?, value, self.after_hosts(slot)),
                &mut gone,
            );
        }
        self.header.0[COUNT].fetch_sub(removed as u64, Ordering::AcqRel);
        removed
    }

    fn describe(&self, subnet: Subnet, value: u32, slot: Slot) -> Entry {
        Entry {
            subnet,
            value,
            since: self.details.since(slot),
            hits: self.details.hits(slot),
            reason: self.details.reason(slot),
        }
    }

    #[inline]
    fn hash_host(&self, address: u32) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u32(address);
        hasher.finish()
    }

    #[inline]
    fn hash_net(&self, key: Key) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u128(key.bits);
        hasher.write_u8(key.length);
        hasher.finish()
    }
}

#[cfg(all(test, loom))]
mod loom;
#[cfg(all(test, not(loom)))]
mod tests;
