//! Changes of bans, from the processes that make them to the updater, which brings the firewall up to date.
//!
//! A change only names the table and the address. The updater asks the tables what holds now, so a change may
//! arrive late or twice. If the queue was full and changes were lost, everything is compared.

use std::net::IpAddr;

use super::origin::Origin;
use super::ring::Ring;
use crate::address::Subnet;
use crate::memory::{Arena, OutOfMemory};

/// Changes that can wait. With more, the updater compares tables and firewall as a whole.
const CAPACITY: usize = 4096;

/// What happened to a ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was placed, or its end moved.
    Blocked,
    /// It was lifted.
    Unblocked,
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BanChange {
    /// The table that changed.
    pub origin: Origin,
    /// The address or prefix.
    pub subnet: Subnet,
    /// What happened to its ban.
    pub kind: ChangeKind,
}

impl BanChange {
    /// As three words: kind, origin, family and prefix length in the first; the address in the others.
    fn encode(self) -> [u64; 3] {
        let kind = match self.kind {
            ChangeKind::Blocked => 1,
            ChangeKind::Unblocked => 2,
        };
        let (family, bits) = match self.subnet.address() {
            IpAddr::V4(ip) => (4, u128::from(ip.to_bits())),
            IpAddr::V6(ip) => (6, ip.to_bits()),
        };
        let head = kind << 24
            | (self.origin as u64) << 16
            | family << 8
            | u64::from(self.subnet.prefix_len());
        [head, (bits >> 64) as u64, bits as u64]
    }

    fn decode([head, high, low]: [u64; 3]) -> Option<Self> {
        let ip = match head >> 8 & 255 {
            4 => IpAddr::V4((low as u32).into()),
            _ => IpAddr::V6((u128::from(high) << 64 | u128::from(low)).into()),
        };
        Some(BanChange {
            origin: *Origin::ALL.get((head >> 16 & 255) as usize)?,
            subnet: Subnet::new(ip, head as u8)?,
            kind: match head >> 24 {
                1 => ChangeKind::Blocked,
                2 => ChangeKind::Unblocked,
                _ => return None,
            },
        })
    }
}

/// The changes that wait.
#[derive(Clone, Copy)]
pub struct BanChanges {
    ring: Ring<1>,
}

impl BanChanges {
    /// None.
    pub fn new(arena: &mut dyn Arena) -> Result<Self, OutOfMemory> {
        Ok(BanChanges {
            ring: Ring::new(arena, "the changes of bans", CAPACITY)?,
        })
    }

    /// Adds a change. The caller wakes the updater if [`BanChanges::must_wake`] says so.
    pub fn put(&self, change: BanChange) {
        self.ring.push(change.encode());
    }

    /// True if the updater sleeps and no other process has woken it yet.
    pub fn must_wake(&self) -> bool {
        self.ring.announce()
    }

    /// Called by the updater before it takes changes.
    pub fn awake(&self) {
        self.ring.awake();
    }

    /// The oldest change.
    pub fn take(&self) -> Option<BanChange> {
        loop {
            let words = self
                .ring
                .pop(|words| std::array::from_fn(|_| words.next().unwrap_or(0)))?;
            if let Some(change) = BanChange::decode(words) {
                return Some(change);
            }
        }
    }

    /// True if changes were lost since the last call.
    pub fn lost(&self) -> bool {
        self.ring.take_dropped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HeapArena;

    #[test]
    fn changes_come_back_as_they_were() {
        let changes = BanChanges::new(&mut HeapArena).unwrap();
        let change = |origin, subnet: &str, kind| BanChange {
            origin,
            subnet: subnet.parse().unwrap(),
            kind,
        };
        let given = [
            change(Origin::Local, "192.0.2.7", ChangeKind::Blocked),
            change(Origin::Peer, "2001:db8::/64", ChangeKind::Unblocked),
            change(Origin::Feed, "198.51.100.0/24", ChangeKind::Blocked),
        ];
        given.iter().for_each(|change| changes.put(*change));
        assert_eq!(std::array::from_fn(|_| changes.take().unwrap()), given);
        assert_eq!(changes.take(), None);
        (0..=CAPACITY).for_each(|_| changes.put(given[0]));
        assert!(changes.lost());
    }
}
