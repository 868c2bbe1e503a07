//! The ban table: addresses and prefixes with an end, in memory shared by all processes.
//!
//! It knows nothing of Kamailio. IPv4 addresses stand in `hosts`, seven to a cache line; IPv6 and
//! prefixes in `nets`. The value of an entry is the second at which it ends, so that key and
//! end are always read and written together. Trust uses the same table with another value.

mod buckets;
mod copies;
mod details;
mod entry;
mod hosts;
mod lengths;
mod lookup;
mod nets;
mod slot;
mod sweep;

use std::hash::{BuildHasher, Hasher};
use std::marker::PhantomData;
use std::net::IpAddr;

use foldhash::fast::FixedState;

use crate::address::Subnet;
use crate::clock::UnixSeconds;
use crate::memory::{fence, Arena, Line, Ordering, OutOfMemory, WrittenPages};
use buckets::Buckets;
use details::Details;
pub use details::REASON_MAX;
use entry::{host_address, key_of, subnet_of};
pub use entry::{Entry, Found, Further, Inserted, Value};
use hosts::Hosts;
use lengths::{Length, Lengths};
use nets::{Key, Nets};
use slot::{Placed, Raise, Slot};

/// Longest ban in seconds: ten years.
pub const MAX_TTL: u32 = 315_360_000;

/// The earliest end that a table stores: a value is not zero.
pub const FIRST_END: UnixSeconds = UnixSeconds::new(1);

/// Buckets are this full, in percent, when a table holds as many entries as it may.
const LOAD_PERCENT: usize = 60;

/// The largest table whose pages [`Table::prepare`] makes.
const PREPARED: usize = 262_144;

// Words of the header line.
const COUNT: usize = 0;
const V4_PREFIXES: usize = 1;
const V6_PREFIXES: usize = 2; // IPv6 addresses included
const EARLIEST: usize = 3;

/// What a table is made for.
#[derive(Clone, Copy, Debug)]
pub struct TableLayout {
    /// Names the table if memory cannot be had.
    pub purpose: &'static str,
    /// The most entries of both families together.
    pub capacity: usize,
    /// True if the table keeps a reason for each entry, 64 bytes more.
    pub reasons: bool,
}

/// A table of addresses and prefixes with the ends of their bans, or with values of another kind.
#[derive(Clone)]
pub struct Table<V = UnixSeconds> {
    header: &'static Line,
    hosts: Hosts,
    written_hosts: WrittenPages,
    nets: Nets,
    written_nets: WrittenPages,
    lengths: Lengths,
    details: Details,
    hasher: FixedState,
    capacity: usize,
    values: PhantomData<V>,
}

impl<V: Value> Table<V> {
    /// An empty table. `seed` keys the hash: it must be unknown to whoever chooses addresses.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn new(arena: &mut dyn Arena, layout: TableLayout, seed: u64) -> Result<Self, OutOfMemory> {
        let TableLayout {
            purpose,
            capacity,
            reasons,
        } = layout;
        let room = capacity.max(1) * 100 / LOAD_PERCENT;
        let host_lines = arena.lines(purpose, room.div_ceil(hosts::SLOTS))?;
        let net_lines = arena.lines(purpose, room.div_ceil(nets::SLOTS))?;
        let hosts = Hosts::new(Buckets::new(host_lines));
        let nets = Nets::new(Buckets::new(net_lines));
        Ok(Table {
            header: &arena.lines(purpose, 1)?[0],
            written_hosts: WrittenPages::new(arena, purpose, host_lines)?,
            written_nets: WrittenPages::new(arena, purpose, net_lines)?,
            lengths: Lengths::new(arena, purpose)?,
            details: Details::new(arena, purpose, hosts.slots() + nets.slots(), reasons)?,
            hosts,
            nets,
            hasher: FixedState::with_seed(seed),
            capacity,
            values: PhantomData,
        })
    }

    /// Makes the pages for IPv4 addresses exist, so that the first inserts do not pay for them; nothing for a
    /// table of more than 262,144 entries, which is to use memory only as it fills. To be called before
    /// anybody waits; a table of 65,536 entries takes 1.5 MB so.
    pub fn prepare(&self) {
        if self.capacity <= PREPARED {
            self.hosts.prepare();
            self.details.prepare(self.hosts.slots());
        }
    }

    /// How many entries it may hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many entries it holds, those included that ended and were not yet swept.
    pub fn len(&self) -> usize {
        self.header[COUNT].load(Ordering::Relaxed) as usize
    }

    /// True if it holds nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.header[COUNT].load(Ordering::Relaxed) == 0
    }

    /// Counts one packet that met the entry.
    #[inline]
    pub fn hit(&self, found: Found<V>) {
        self.details.hit(found.slot());
    }

    /// Packets that met the entry.
    pub fn hits(&self, found: Found<V>) -> u32 {
        self.details.hits(found.slot())
    }

    /// Counts packets that met the entry elsewhere, such as in the kernel. Not for the check path.
    pub fn add_hits(&self, found: Found<V>, packets: u64) {
        self.details.add_hits(found.slot(), packets);
    }

    /// Stores which node of the cluster an entry came from, by a number above 0.
    pub fn set_node(&self, subnet: Subnet, node: u16) {
        if let Some(found) = self.find(subnet) {
            self.details.set_node(found.slot(), node);
        }
    }

    /// Everything known of a found entry; `None` if its slot has been reused meanwhile.
    pub fn entry(&self, found: Found<V>) -> Option<Entry<V>> {
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

    /// Adds an entry, or lets the longer end win. `value` is not zero. There is no room for a prefix of length 0.
    pub fn insert(&self, subnet: Subnet, value: V, since: UnixSeconds, reason: &str) -> Inserted {
        let value = value.into_number();
        loop {
            if let Some(known) = self.raise(subnet, value, reason) {
                return known;
            }
            let count = &self.header[COUNT];
            if count.fetch_add(1, Ordering::AcqRel) >= self.capacity as u64 {
                count.fetch_sub(1, Ordering::AcqRel);
                return Inserted::Full;
            }
            let placed = self.place(subnet, value);
            if let Placed::At(slot) = placed {
                self.mark_written(slot);
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
        if subnet.prefix_len() == 0 {
            return Placed::Full;
        }
        let key = key_of(subnet);
        self.enter(key);
        let placed = self.nets.place(key, self.hash_net(key), value);
        match placed {
            Placed::At(slot) => Placed::At(self.after_hosts(slot)),
            other => {
                self.left(key, 1);
                other
            }
        }
    }

    /// Counts an entry of the prefixes before it is placed: a lookup that can find it probes for it.
    fn enter(&self, key: Key) {
        let (prefixes, length) = length_of(key);
        self.header[prefixes].fetch_add(1, Ordering::AcqRel);
        self.lengths.enter(length);
    }

    /// Takes entries of the prefixes off the count after they are gone.
    fn left(&self, key: Key, entries: usize) {
        let (prefixes, length) = length_of(key);
        self.lengths.leave(length, entries);
        self.header[prefixes].fetch_sub(entries as u64, Ordering::AcqRel);
    }

    /// Marks the page of a new entry for the sweeps.
    fn mark_written(&self, slot: Slot) {
        match slot.index().checked_sub(self.hosts.slots()) {
            None => self.written_hosts.mark(Hosts::bucket(slot)),
            Some(index) => self.written_nets.mark(Nets::bucket(Slot::new(index))),
        }
    }

    /// Notes the end of a new entry for [`Table::expire`].
    fn lower_mark(&self, value: u32) {
        // Pairs with the fence in `expire`: the sweep sees the entry, or this sees the mark it raised.
        fence(Ordering::SeqCst);
        let mark = &self.header[EARLIEST];
        if mark.load(Ordering::Relaxed) > u64::from(value) {
            mark.fetch_min(u64::from(value), Ordering::Relaxed);
        }
    }

    /// Overwrites the value of an entry that exists, higher or lower; false if there is none.
    pub fn replace(&self, subnet: Subnet, value: V) -> bool {
        let value = value.into_number();
        let replaced = match host_address(subnet) {
            Some(address) => self.hosts.replace(address, self.hash_host(address), value),
            None => {
                let key = key_of(subnet);
                self.nets.replace(key, self.hash_net(key), value)
            }
        };
        if replaced {
            self.lower_mark(value);
        }
        replaced
    }

    /// Adds an entry, or overwrites one that exists with a higher or lower value and this reason; false if there
    /// is no room.
    pub fn put(&self, subnet: Subnet, value: V, since: UnixSeconds, reason: &str) -> bool {
        if !self.replace(subnet, value) {
            return self.insert(subnet, value, since, reason) != Inserted::Full;
        }
        self.lower_mark(value.into_number());
        if let Some(found) = self.find(subnet) {
            self.details.renew(found.slot(), since, reason);
        }
        true
    }

    /// Removes exactly this address or prefix; false if it was not there.
    pub fn remove(&self, subnet: Subnet) -> bool {
        let removed = match host_address(subnet) {
            Some(address) => self.hosts.remove(address, self.hash_host(address)),
            None => {
                let key = key_of(subnet);
                let removed = self.nets.remove(key, self.hash_net(key));
                // Of length 0 there are none, and no counter.
                if removed > 0 {
                    self.left(key, removed);
                }
                removed
            }
        };
        self.header[COUNT].fetch_sub(removed as u64, Ordering::AcqRel);
        removed > 0
    }

    fn describe(&self, subnet: Subnet, number: u32, slot: Slot) -> Entry<V> {
        Entry {
            subnet,
            value: V::from_number(number),
            since: self.details.since(slot),
            hits: self.details.hits(slot),
            reason: self.details.reason(slot),
            node: self.details.node(slot),
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

/// The word of the header that counts entries of this family, and the prefix length in the family.
fn length_of(key: Key) -> (usize, Length) {
    match subnet_of(key) {
        Some(subnet) if subnet.is_v4() => {
            let bits = subnet.prefix_len();
            (V4_PREFIXES, Length { is_v4: true, bits })
        }
        _ => {
            let bits = key.length;
            (V6_PREFIXES, Length { is_v4: false, bits })
        }
    }
}

#[cfg(all(test, loom))]
mod loom;
#[cfg(all(test, not(loom)))]
mod tests;
