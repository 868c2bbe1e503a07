//! Passes over the whole table: what ended, what is not wanted any more, and what is there.

use std::net::IpAddr;

use super::entry::subnet_of;
use super::slot::Slot;
use super::{Entry, Table, Value, COUNT, EARLIEST};
use crate::address::Subnet;
use crate::clock::UnixSeconds;
use crate::memory::{fence, Ordering};

impl Table {
    /// Removes what ended at or before `now` and shows each to `ended`. Costs nothing before the
    /// earliest end. One process at a time may call this.
    pub fn expire(&self, now: UnixSeconds, mut ended: impl FnMut(Entry)) {
        let now = now.get();
        if self.is_empty() || self.header[EARLIEST].load(Ordering::Relaxed) > u64::from(now) {
            return;
        }
        self.header[EARLIEST].store(u64::MAX, Ordering::Relaxed);
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
        self.header[EARLIEST].fetch_min(earliest, Ordering::Relaxed);
    }

    /// Shows every entry that ends after `now` once, in no order.
    pub fn for_each_live(&self, now: UnixSeconds, visit: impl FnMut(Entry)) {
        self.for_each_above(now.get(), visit);
    }
}

impl<V: Value> Table<V> {
    /// Removes the entries for which `keep` says no; returns how many went.
    pub fn retain(&self, mut keep: impl FnMut(Subnet, V) -> bool) -> usize {
        self.sweep(
            |subnet, value, _| (!keep(subnet, V::from_number(value))).then_some(()),
            drop,
        )
    }

    /// Shows every entry once, in no order, those that ended included.
    pub fn for_each(&self, visit: impl FnMut(Entry<V>)) {
        self.for_each_above(0, visit);
    }

    /// Shows every entry with a number above `floor` once, in no order.
    fn for_each_above(&self, floor: u32, mut visit: impl FnMut(Entry<V>)) {
        self.sweep(
            |subnet, value, slot| {
                // Of two copies (see `hosts`) the one that a search finds.
                if value > floor && self.find(subnet).is_none_or(|found| found.slot() == slot) {
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
            self.written_hosts.lines(),
            |address| self.hash_host(address),
            |address, value, slot| judge(Subnet::host(IpAddr::V4(address.into())), value, slot),
            &mut gone,
        );
        removed += self.nets.sweep(
            self.written_nets.lines(),
            |key| self.hash_net(key),
            |key, value, slot| Some((key, judge(subnet_of(key)?, value, self.after_hosts(slot))?)),
            |(key, answer)| {
                self.left(key, 1);
                gone(answer);
            },
        );
        self.header[COUNT].fetch_sub(removed as u64, Ordering::AcqRel);
        removed
    }
}
