//! IPv4 addresses: seven to a cache line, a lookup reads one line.
//!
//! A slot is one word, address in the high half and value in the low half, so that both are always
//! read and written together. Zero is an empty slot: a value is never zero. The value is the end of
//! the ban, or whatever else the owner of the table stores.
//!
//! The low seven bytes of a bucket's control word hold a tag for each slot: zero where the slot is free,
//! else the highest bit and seven bits of the hash of what stands there. A lookup compares all seven at once
//! and looks only at slots whose tag fits, which is almost always the right one or none.
//!
//! **Protocol.** Any number of readers and writers, no locks, no waiting. Every change is one
//! compare-and-swap of one word.
//! - A writer takes a free slot by setting its tag, and only then stores the word: nobody else writes to
//!   a slot that is empty but taken. Who clears a word gives the slot back by clearing its tag. So the tag
//!   of an entry is there before the entry and goes after it: a lookup misses none that was there
//!   throughout. A slot whose writer died in between stays unused; nobody waits for it.
//! - A writer that loses a slot looks who took it, so two writers of the same address normally agree on
//!   one entry. They do not if the word is not there yet, or an earlier slot became free between the
//!   two: then the address stands twice. Nobody merges the copies. Clearing one because the other is there
//!   cannot be done in one step, and a removal in between would take a ban with it (`loom.rs` has that
//!   case). Instead every operation bears copies: a lookup takes any that has not ended, a removal clears
//!   all, and the sweep takes an address for ended only when its last copy went.
//! - A removal looks for all copies first, then clears those very words, the farthest first. It is seen when
//!   the last copy goes, and after that it clears nothing: a ban placed by who saw it stays. One case is left
//!   in which that ban goes: an address stood twice, two removals met, the one that had seen a single copy
//!   took the nearer one, and the ban came into that slot with the same end before the other removal was
//!   through. That removal then counts as the later one of the two.

use super::buckets::{passed, Buckets};
use super::copies::Copied;
use super::slot::{Placed, Raise, Slot};
use crate::memory::{AtomicU64, Line, Ordering, LINE_WORDS, PAGE_BYTES};

/// Slots in a bucket. The model checker gets two: every further one multiplies its states.
pub const SLOTS: usize = if cfg!(loom) { 2 } else { LINE_WORDS - 1 };

/// The IPv4 part of a table.
#[derive(Clone, Copy)]
pub struct Hosts {
    buckets: Buckets,
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

/// One in each byte that is the tag of a slot.
const TAGS: u64 = 0x0001_0101_0101_0101 & ((1 << (8 * SLOTS)) - 1);
/// The bit of each tag that says that the slot is taken.
const TAKEN: u64 = TAGS << 7;

/// The tag of what has this hash: its lowest bits, since the highest choose the bucket.
#[inline]
fn tag(hash: u64) -> u64 {
    hash & 0x7f
}

/// [`TAKEN`] of each slot in `control` whose tag is `tag`; if `tag` is 0, a free slot may be among them.
#[inline]
fn fitting(control: u64, tag: u64) -> u64 {
    // No byte of the difference is above 0x7f, so nothing is borrowed from the next.
    (TAKEN - ((control ^ (tag * TAGS)) & (TAKEN - TAGS))) & TAKEN
}

/// [`TAKEN`] of each free slot in `control`.
#[inline]
fn free(control: u64) -> u64 {
    !control & TAKEN
}

/// The slot of the lowest bit of `slots`, which [`fitting`] or [`free`] answered.
#[inline]
fn lowest(slots: u64) -> usize {
    slots.trailing_zeros() as usize / 8
}

/// True for an entry of this address; an empty slot looks like 0.0.0.0 without a value.
#[inline]
const fn holds(word: u64, address: u32) -> bool {
    address_of(word) == address && word != 0
}

/// True for an entry of this address with a value above `floor`. An empty slot looks like 0.0.0.0, but its
/// value is above nothing.
#[inline(always)]
fn is(word: u64, address: u32, floor: u32) -> bool {
    address_of(word) == address && value_of(word) > floor
}

impl Hosts {
    /// Builds on zeroed buckets.
    pub fn new(buckets: Buckets) -> Self {
        Hosts { buckets }
    }

    /// Looks at every page of the buckets, so that it exists.
    pub fn prepare(&self) {
        for bucket in (0..self.buckets.len()).step_by(PAGE_BYTES / size_of::<Line>()) {
            self.buckets.control(bucket).load(Ordering::Relaxed);
        }
    }

    /// Number of slot indices, for arrays that go with the slots.
    pub fn slots(&self) -> usize {
        self.buckets.len() * LINE_WORDS
    }

    /// An entry of `address` with a value above `floor`: place and value.
    pub fn lookup(&self, address: u32, hash: u64, floor: u32) -> Option<(Slot, u32)> {
        let home = self.buckets.home(hash);
        for distance in 0..self.buckets.reach() {
            let bucket = self.buckets.at(home, distance);
            let words = &self.buckets.line(bucket).0;
            // Tags and count in one look: an entry that was there throughout shows in one of the two.
            let control = words[0].load(Ordering::Acquire);
            let mut candidates = fitting(control, tag(hash));
            while candidates != 0 {
                let index = 1 + lowest(candidates);
                let word = words[index].load(Ordering::Acquire);
                if is(word, address, floor) {
                    let slot = Slot::new(bucket * LINE_WORDS + index);
                    return Some((slot, value_of(word)));
                }
                candidates &= candidates - 1;
            }
            if passed(control) == 0 {
                break;
            }
        }
        None
    }

    /// The first step of [`Hosts::lookup`], which almost always decides. The second value is `true` if it does not:
    /// nothing was found, but there are more buckets to search. This is the hot path: it calls `floor` only when an
    /// entry may match, which keeps a register free until then.
    #[inline(always)]
    pub fn lookup_fast(
        &self,
        address: u32,
        hash: u64,
        floor: impl Fn() -> u32,
    ) -> (Option<(Slot, u32)>, bool) {
        let bucket = self.buckets.home(hash);
        // There always is one; but who cannot panic has nothing to unwind, and here that counts.
        let Some(Line(words)) = self.buckets.get(bucket) else {
            return (None, true);
        };
        let control = words[0].load(Ordering::Acquire);
        let candidates = fitting(control, tag(hash));
        if candidates != 0 {
            let index = 1 + lowest(candidates);
            let word = words[index].load(Ordering::Acquire);
            if is(word, address, floor()) {
                let slot = Slot::new(bucket * LINE_WORDS + index);
                return (Some((slot, value_of(word))), false);
            }
            if candidates & (candidates - 1) != 0 {
                return (None, true);
            }
        }
        (None, passed(control) != 0)
    }

    /// Places an address that [`Hosts::raise`] did not find. `value` is not zero.
    pub fn place(&self, address: u32, hash: u64, value: u32) -> Placed {
        self.buckets
            .place(hash, |bucket| self.place_in(bucket, address, hash, value))
    }

    fn place_in(&self, bucket: usize, address: u32, hash: u64, value: u32) -> Placed {
        let control = self.buckets.control(bucket);
        let mut seen = control.load(Ordering::Acquire);
        loop {
            let mut candidates = fitting(seen, tag(hash));
            while candidates != 0 {
                let slot = Self::slot(bucket, lowest(candidates));
                if holds(self.word(slot), address) {
                    return Placed::Known;
                }
                candidates &= candidates - 1;
            }
            let free = free(seen);
            if free == 0 {
                return Placed::Full;
            }
            let index = lowest(free);
            let taken = seen | (tag(hash) | 0x80) << (8 * index);
            match control.compare_exchange(seen, taken, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    let slot = Self::slot(bucket, index);
                    self.at(slot).store(pack(address, value), Ordering::Release);
                    return Placed::At(slot);
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Gives back a slot whose word the caller has cleared.
    fn release(&self, slot: Slot) {
        let tag = 0xff << (8 * (slot.index() % LINE_WORDS - 1));
        self.buckets
            .control(Self::bucket(slot))
            .fetch_and(!tag, Ordering::AcqRel);
    }

    /// Raises the value of an entry that exists; `None` if there is none.
    pub fn raise(&self, address: u32, hash: u64, value: u32) -> Option<Raise> {
        loop {
            let (slot, found) = self.lookup(address, hash, 0)?;
            if found >= value {
                return Some(Raise::Kept(slot));
            }
            if self.swap(slot, pack(address, found), pack(address, value)) {
                return Some(Raise::Raised(slot));
            }
        }
    }

    /// Overwrites the value of an entry that exists, higher or lower; false if there is none.
    pub fn replace(&self, address: u32, hash: u64, value: u32) -> bool {
        self.change(address, hash, pack(address, value)) > 0
    }

    /// Removes every copy of `address`; returns how many there were.
    pub fn remove(&self, address: u32, hash: u64) -> usize {
        self.change(address, hash, 0)
    }

    /// Puts `to` in place of every copy of `address`; returns how many were changed.
    fn change(&self, address: u32, hash: u64, to: u64) -> usize {
        let home = self.buckets.home(hash);
        let read = |slot| Some(self.word(slot)).filter(|word| holds(*word, address));
        let mut changed = 0;
        for Copied {
            slot,
            distance,
            seen,
        } in self.buckets.copies(hash, Self::slots_of, read)
        {
            let mut word = seen;
            loop {
                if word == to || self.swap(slot, word, to) {
                    changed += 1;
                    if to == 0 {
                        self.release(slot);
                        self.buckets.unpass(home, distance);
                    }
                    break;
                }
                word = self.word(slot);
                if !holds(word, address) {
                    break;
                }
                if changed > 0 {
                    // Written since this looked: by somebody who comes after it.
                    return changed;
                }
            }
        }
        changed
    }

    /// Shows the entries in these buckets to `judge`, clears those for which it answers something, and hands the
    /// answer to `gone`; returns how many it cleared. `hash` must be the table's hash of an address.
    pub fn sweep<T>(
        &self,
        buckets: impl Iterator<Item = usize>,
        hash: impl Fn(u32) -> u64,
        mut judge: impl FnMut(u32, u32, Slot) -> Option<T>,
        mut gone: impl FnMut(T),
    ) -> usize {
        let mut removed = 0;
        for slot in buckets.flat_map(Self::slots_of) {
            // Only the very word that was shown is cleared: an entry raised since then is shown again.
            while let Some((address, value)) = self.entry(slot) {
                let Some(answer) = judge(address, value, slot) else {
                    break;
                };
                if self.swap(slot, pack(address, value), 0) {
                    self.release(slot);
                    self.buckets.leave(Self::bucket(slot), hash(address));
                    removed += 1;
                    gone(answer);
                    break;
                }
            }
        }
        removed
    }

    /// Address and value in a slot; `None` if it is empty.
    pub fn entry(&self, slot: Slot) -> Option<(u32, u32)> {
        let word = self.word(slot);
        (word != 0).then(|| (address_of(word), value_of(word)))
    }

    fn word(&self, slot: Slot) -> u64 {
        self.at(slot).load(Ordering::Acquire)
    }

    fn swap(&self, slot: Slot, from: u64, to: u64) -> bool {
        self.at(slot)
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    fn at(&self, slot: Slot) -> &'static AtomicU64 {
        &self.buckets.line(Self::bucket(slot))[slot.index() % LINE_WORDS]
    }

    /// Slot `index` of a bucket, from 0.
    fn slot(bucket: usize, index: usize) -> Slot {
        Slot::new(bucket * LINE_WORDS + 1 + index)
    }

    fn slots_of(bucket: usize) -> impl Iterator<Item = Slot> {
        (0..SLOTS).map(move |index| Self::slot(bucket, index))
    }

    /// The bucket of a slot.
    pub fn bucket(slot: Slot) -> usize {
        slot.index() / LINE_WORDS
    }

    /// Number of buckets.
    #[cfg(all(test, loom))]
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// True if no bucket is passed by any entry: for tests of emptied tables.
    #[cfg(test)]
    pub fn is_settled(&self) -> bool {
        (0..self.buckets.len()).all(|bucket| !self.buckets.overflowed(bucket))
    }
}
