//! BanChanges to the updater on what changed in the local table: it brings the firewall up to date.
//!
//! A note only names the address; what is to be done follows from the table, so notes may come late,
//! twice, or, where the queue was full, not at all: then everything is compared.

use std::net::IpAddr;

use super::ring::Ring;
use crate::address::Subnet;
use crate::memory::{Arena, OutOfMemory};

/// BanChanges that can wait. Beyond, the updater compares table and firewall as a whole.
const CAPACITY: usize = 4096;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BanChange {
    /// A ban came, or its end moved.
    Blocked(Subnet),
    /// A ban was lifted.
    Unblocked(Subnet),
}

/// The notes that wait.
#[derive(Clone, Copy)]
pub struct BanChanges {
    ring: Ring<1>,
}

impl BanChanges {
    /// None.
    pub fn new(arena: &mut dyn Arena) -> Result<Self, OutOfMemory> {
        Ok(BanChanges {
            ring: Ring::new(arena, "the notes", CAPACITY)?,
        })
    }

    /// Adds a note. The caller wakes the updater where [`BanChanges::must_wake`] says so.
    pub fn put(&self, note: BanChange) {
        let (kind, subnet) = match note {
            BanChange::Blocked(subnet) => (1, subnet),
            BanChange::Unblocked(subnet) => (2, subnet),
        };
        let (family, bits) = match subnet.address() {
            IpAddr::V4(ip) => (4, u128::from(ip.to_bits())),
            IpAddr::V6(ip) => (6, ip.to_bits()),
        };
        let head = kind << 16 | family << 8 | u64::from(subnet.prefix_len());
        self.ring.push([head, (bits >> 64) as u64, bits as u64]);
    }

    /// True where the updater sleeps and nobody has woken it yet.
    pub fn must_wake(&self) -> bool {
        self.ring.announce()
    }

    /// Called by the updater before it takes notes.
    pub fn awake(&self) {
        self.ring.awake();
    }

    /// The oldest note.
    pub fn take(&self) -> Option<BanChange> {
        loop {
            let [head, high, low] = self
                .ring
                .pop(|words| std::array::from_fn(|_| words.next().unwrap_or(0)))?;
            let ip = match head >> 8 & 255 {
                4 => IpAddr::V4((low as u32).into()),
                _ => IpAddr::V6((u128::from(high) << 64 | u128::from(low)).into()),
            };
            match (Subnet::new(ip, head as u8), head >> 16) {
                (Some(subnet), 1) => return Some(BanChange::Blocked(subnet)),
                (Some(subnet), 2) => return Some(BanChange::Unblocked(subnet)),
                _ => {}
            }
        }
    }

    /// True where notes were lost since the last call.
    pub fn lost(&self) -> bool {
        self.ring.take_dropped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HeapArena;

    #[test]
    fn notes_come_back_as_they_were() {
        let notes = BanChanges::new(&mut HeapArena).unwrap();
        let given = [
            BanChange::Blocked("192.0.2.7".parse().unwrap()),
            BanChange::Unblocked("2001:db8::/64".parse().unwrap()),
            BanChange::Blocked("198.51.100.0/24".parse().unwrap()),
        ];
        given.iter().for_each(|note| notes.put(*note));
        assert_eq!(std::array::from_fn(|_| notes.take().unwrap()), given);
        assert_eq!(notes.take(), None);
        (0..=CAPACITY).for_each(|_| notes.put(given[0]));
        assert!(notes.lost());
    }
}
