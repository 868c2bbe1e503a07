//! IPv4 addresses: seven to a cache line, a lookup reads one line.
//!
//! A slot is one word, address in the high half and value in the low half, so that both are always
//! read and written together. Zero is an empty slot: a value is never zero. The value is the end of
//! the ban, or whatever else the owner of the table stores.
//!
//! **Protocol.** Any number of readers and writers, no locks, no waiting.
//! - A new address goes into the first empty slot by compare-and-swap. Two writers may place the
//!   same address at the same moment; after placing, each one looks at the whole chain and merges
//!   copies. As the placing and the look are separated by a sequentially consistent fence, at least
//!   one of the two sees both copies.
//! - Merging raises the copy that stands **later** in search order and only then clears the earlier
//!   one. A reader goes through the chain in that same order, so it meets one of them whatever the
//!   timing: an address that is banned is never missed.
//! - Removing clears every copy by compare-and-swap.

use super::atomic::{fence, Ordering, LINE_WORDS};
use super::buckets::Buckets;

/// Slots in a bucket.
pub const SLOTS: usize = LINE_WORDS - 1;

/// The IPv4 part of a table.
#[derive(Clone, Copy)]
pub struct Hosts {
    buckets: Buckets,
}

/// Where an entry stands: index for the arrays that go with the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub usize);

/// What became of an entry that was there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raise {
    /// It now has the higher value.
    Raised(Slot),
    /// Its value was at least as high.
    Kept(Slot),
}

#[inline]
const fn pack(address: u32, value: u32) -> u64 {
    (address as u64) << 32 | value as u64
}

#[inline]
const fn address_of(word: u64) -> u32 {
    (word >> 32) as u32
}

#[inline]
const fn value_of(word: u64) -> u32 {
    word as u32
}

impl Hosts {
    /// Builds on zeroed buckets.
    pub fn new(buckets: Buckets) -> Self {
        Hosts { buckets }
    }

    /// Number of slot indices, for arrays that go with the slots.
    pub fn slots(&self) -> usize {
        self.buckets.len() * LINE_WORDS
    }

    /// The value of `address` for which `accept` holds, and its place. This is the hot path.
    #[inline]
    pub fn lookup(
        &self,
        address: u32,
        hash: u64,
        accept: impl Fn(u32) -> bool,
    ) -> Option<(Slot, u32)> {
        let home = self.buckets.home(hash);
        for distance in 0..self.buckets.reach() {
            let bucket = self.buckets.at(home, distance);
            let line = self.buckets.line(bucket);
            for index in 1..LINE_WORDS {
                // Acquire keeps the slots in order: merging relies on it.
                let word = line.0[index].load(Ordering::Acquire);
                if address_of(word) == address && word != 0 && accept(value_of(word)) {
                    return Some((Slot(bucket * LINE_WORDS + index), value_of(word)));
                }
            }
            if !self.buckets.overflowed(bucket) {
                break;
            }
        }
        None
    }

    /// Places an address that is not there yet; [`Hosts::merge`] must follow. `value` is not zero.
    pub fn place(&self, address: u32, hash: u64, value: u32) -> Option<Slot> {
        let home = self.buckets.home(hash);
        for distance in 0..self.buckets.reach() {
            let bucket = self.buckets.at(home, distance);
            let line = self.buckets.line(bucket);
            for index in 1..LINE_WORDS {
                let slot = &line.0[index];
                // A plain look first: a failing compare-and-swap would still take the line over.
                if slot.load(Ordering::Relaxed) == 0
                    && slot
                        .compare_exchange(
                            0,
                            pack(address, value),
                            Ordering::SeqCst,
                            Ordering::Relaxed,
                        )
                        .is_ok()
                {
                    return Some(Slot(bucket * LINE_WORDS + index));
                }
            }
            self.buckets.pass(bucket);
        }
        self.buckets.unpass(home, self.buckets.reach());
        None
    }

    /// Raises the value of an entry that exists; `None` where there is none.
    pub fn raise(&self, address: u32, hash: u64, value: u32) -> Option<Raise> {
        loop {
            let (slot, found) = self.lookup(address, hash, |_| true)?;
            if found >= value {
                return Some(Raise::Kept(slot));
            }
            if self.swap(slot, pack(address, found), pack(address, value)) {
                return Some(Raise::Raised(slot));
            }
        }
    }

    /// Overwrites the value of an entry that exists, higher or lower; false where there is none.
    pub fn replace(&self, address: u32, hash: u64, value: u32) -> bool {
        while let Some((slot, found)) = self.lookup(address, hash, |_| true) {
            if found == value || self.swap(slot, pack(address, found), pack(address, value)) {
                return true;
            }
        }
        false
    }

    /// Merges copies of `address` that two writers placed at the same moment; returns how many went.
    /// Called after every [`Hosts::place`].
    pub fn merge(&self, address: u32, hash: u64) -> usize {
        fence(Ordering::SeqCst);
        let home = self.buckets.home(hash);
        let mut merged = 0;
        let mut earlier: Option<(Slot, usize)> = None;
        for distance in 0..self.buckets.reach() {
            let bucket = self.buckets.at(home, distance);
            for index in 1..LINE_WORDS {
                let slot = Slot(bucket * LINE_WORDS + index);
                if self.word(slot) >> 32 != u64::from(address) || self.word(slot) == 0 {
                    continue;
                }
                if let Some((first, first_distance)) = earlier {
                    if self.fold_into(address, first, slot) {
                        self.buckets.unpass(home, first_distance);
                        merged += 1;
                    }
                }
                earlier = Some((slot, distance));
            }
            if !self.buckets.overflowed(bucket) {
                break;
            }
        }
        merged
    }

    /// Raises `later` to the value of `earlier`, then clears `earlier`. True where this call cleared it.
    fn fold_into(&self, address: u32, earlier: Slot, later: Slot) -> bool {
        loop {
            let from = self.word(earlier);
            if address_of(from) != address || from == 0 {
                return false;
            }
            let into = self.word(later);
            if address_of(into) != address || into == 0 {
                return false;
            }
            if value_of(into) < value_of(from) && !self.swap(later, into, from) {
                continue;
            }
            if self.swap(earlier, from, 0) {
                return true;
            }
        }
    }

    /// Removes every copy of `address`; returns how many there were.
    pub fn remove(&self, address: u32, hash: u64) -> usize {
        let home = self.buckets.home(hash);
        let mut removed = 0;
        for distance in 0..self.buckets.reach() {
            let bucket = self.buckets.at(home, distance);
            for index in 1..LINE_WORDS {
                let slot = Slot(bucket * LINE_WORDS + index);
                loop {
                    let word = self.word(slot);
                    if address_of(word) != address || word == 0 {
                        break;
                    }
                    if self.swap(slot, word, 0) {
                        removed += 1;
                        self.buckets.unpass(home, distance);
                        break;
                    }
                }
            }
            if !self.buckets.overflowed(bucket) {
                break;
            }
        }
        removed
    }

    /// Shows every entry to `keep` and clears those for which it says no; returns how many went.
    /// `hash` must be the table's hash of an address.
    pub fn retain(
        &self,
        hash: impl Fn(u32) -> u64,
        mut keep: impl FnMut(u32, u32, Slot) -> bool,
    ) -> usize {
        let mut removed = 0;
        for bucket in 0..self.buckets.len() {
            for index in 1..LINE_WORDS {
                let slot = Slot(bucket * LINE_WORDS + index);
                let word = self.word(slot);
                if word == 0 || keep(address_of(word), value_of(word), slot) {
                    continue;
                }
                // A ban extended since the look stays: only the very word that was shown is cleared.
                if self.swap(slot, word, 0) {
                    let home = self.buckets.home(hash(address_of(word)));
                    let distance = (bucket + self.buckets.len() - home) % self.buckets.len();
                    self.buckets.unpass(home, distance);
                    removed += 1;
                }
            }
        }
        removed
    }

    /// Address and value in a slot; `None` where it is empty.
    pub fn entry(&self, slot: Slot) -> Option<(u32, u32)> {
        let word = self.word(slot);
        (word != 0).then(|| (address_of(word), value_of(word)))
    }

    #[inline]
    fn word(&self, slot: Slot) -> u64 {
        self.buckets.line(slot.0 / LINE_WORDS).0[slot.0 % LINE_WORDS].load(Ordering::SeqCst)
    }

    fn swap(&self, slot: Slot, from: u64, to: u64) -> bool {
        self.buckets.line(slot.0 / LINE_WORDS).0[slot.0 % LINE_WORDS]
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
    }

    /// True where no bucket is passed by any entry: for tests of emptied tables.
    #[cfg(test)]
    pub fn is_settled(&self) -> bool {
        (0..self.buckets.len()).all(|bucket| !self.buckets.overflowed(bucket))
    }
}
