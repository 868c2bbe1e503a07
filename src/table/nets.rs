//! IPv6 addresses and prefixes of both families: exact 128-bit keys with a prefix length.
//!
//! A bucket holds two slots of three words: state, high half, low half of the masked address (IPv4 as
//! `::ffff:a.b.c.d`, its prefix length counted in 128 bits). The state word says whether the slot is
//! empty, being written, or live, and carries prefix length, version and value.
//!
//! **Protocol.** As in [`super::hosts`], with one step more because a key does not fit one word: a
//! writer claims an empty slot (empty to busy, next version), writes the key, and publishes it (busy to
//! live). A reader takes the state, the key, and the state again: only if slot state, length and
//! version are unchanged, the key belonged to that state. A slot whose writer died busy stays
//! unused; nobody waits for it. A removal clears no entry of a version that it has not seen: a ban
//! placed after the removal was seen always stays.

use super::buckets::Buckets;
use super::slot::{Placed, Raise, Slot};
use crate::memory::{fence, Line, Ordering};

/// Slots in a bucket. The model checker gets one: every further one multiplies its states.
pub const SLOTS: usize = if cfg!(loom) { 1 } else { 2 };
const SLOT_WORDS: usize = 3;

/// A masked address and the number of bits that count, 1 to 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The masked address; IPv4 in its mapped form.
    pub bits: u128,
    /// Prefix length in 128 bits.
    pub length: u8,
}

/// The state word: 2 bits of state, 8 of prefix length, 22 of version, 32 of value.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State(u64);

impl State {
    const EMPTY: u64 = 0;
    const BUSY: u64 = 1;
    const LIVE: u64 = 2;
    const VERSION_MASK: u64 = (1 << 22) - 1;

    fn new(kind: u64, length: u8, version: u64, value: u32) -> Self {
        State(
            kind << 62
                | u64::from(length) << 54
                | (version & Self::VERSION_MASK) << 32
                | u64::from(value),
        )
    }

    fn kind(self) -> u64 {
        self.0 >> 62
    }

    fn length(self) -> u8 {
        (self.0 >> 54) as u8
    }

    fn version(self) -> u64 {
        self.0 >> 32 & Self::VERSION_MASK
    }

    fn value(self) -> u32 {
        self.0 as u32
    }

    /// True if only the value may differ: the key that was read belongs to both.
    fn same_entry(self, other: State) -> bool {
        self.0 >> 32 == other.0 >> 32
    }

    fn with_value(self, value: u32) -> Self {
        State(self.0 >> 32 << 32 | u64::from(value))
    }

    fn emptied(self) -> Self {
        State::new(Self::EMPTY, 0, self.version(), 0)
    }
}

/// The part of a table that holds IPv6 and prefixes.
#[derive(Clone, Copy)]
pub struct Nets {
    buckets: Buckets,
}

impl Nets {
    /// Builds on zeroed buckets.
    pub fn new(buckets: Buckets) -> Self {
        Nets { buckets }
    }

    /// Number of slot indices, for arrays that go with the slots.
    pub fn slots(&self) -> usize {
        self.buckets.len() * SLOTS
    }

    /// An entry of `key` with a value above `floor`: place and value.
    #[inline]
    pub fn lookup(&self, key: Key, hash: u64, floor: u32) -> Option<(Slot, u32)> {
        self.buckets.search(hash, |bucket, _| {
            Self::slots_of(bucket).find_map(|slot| {
                let value = self.matches(slot, key)?.value();
                (value > floor).then_some((slot, value))
            })
        })
    }

    /// Raises the value of an entry that exists; `None` if there is none.
    pub fn raise(&self, key: Key, hash: u64, value: u32) -> Option<Raise> {
        loop {
            let (slot, found) = self.lookup(key, hash, 0)?;
            if found >= value {
                return Some(Raise::Kept(slot));
            }
            if self.change(slot, key, |state| {
                (state.value() == found).then(|| state.with_value(value))
            }) {
                return Some(Raise::Raised(slot));
            }
        }
    }

    /// Places a key that [`Nets::raise`] did not find. `value` is not zero.
    pub fn place(&self, key: Key, hash: u64, value: u32) -> Placed {
        self.buckets.place(hash, |bucket| {
            for slot in Self::slots_of(bucket) {
                if self.claim(slot, key, value) {
                    return Placed::At(slot);
                }
                if self.matches(slot, key).is_some() {
                    return Placed::Known;
                }
            }
            Placed::Full
        })
    }

    /// Overwrites the value of an entry that exists, higher or lower; false if there is none.
    pub fn replace(&self, key: Key, hash: u64, value: u32) -> bool {
        let to = |state: State| state.with_value(value);
        self.change_all(key, hash, to, |_| ()) > 0
    }

    /// Removes every copy of `key`; returns how many there were.
    pub fn remove(&self, key: Key, hash: u64) -> usize {
        let home = self.buckets.home(hash);
        self.change_all(key, hash, State::emptied, |distance| {
            self.buckets.unpass(home, distance);
        })
    }

    /// Changes the state of every copy of `key` and shows the distance of each to `changed`; returns how many
    /// there were. The version identifies an entry that came into a slot since then.
    fn change_all(
        &self,
        key: Key,
        hash: u64,
        next: impl Fn(State) -> State,
        changed: impl Fn(usize),
    ) -> usize {
        let read = |slot| self.matches(slot, key);
        self.buckets
            .copies(hash, Self::slots_of, read)
            .filter(|copy| {
                let next = |state: State| state.same_entry(copy.seen).then(|| next(state));
                self.change(copy.slot, key, next)
            })
            .map(|copy| changed(copy.distance))
            .count()
    }

    /// As [`super::hosts::Hosts::sweep`].
    pub fn sweep<T>(
        &self,
        buckets: impl Iterator<Item = usize>,
        hash: impl Fn(Key) -> u64,
        mut judge: impl FnMut(Key, u32, Slot) -> Option<T>,
        mut gone: impl FnMut(T),
    ) -> usize {
        let mut removed = 0;
        for slot in buckets.flat_map(Self::slots_of) {
            while let Some((state, key)) = self.read(slot) {
                let Some(answer) = judge(key, state.value(), slot) else {
                    break;
                };
                if self.swap(slot, state, state.emptied()) {
                    self.buckets.leave(Self::bucket(slot), hash(key));
                    removed += 1;
                    gone(answer);
                    break;
                }
            }
        }
        removed
    }

    fn slots_of(bucket: usize) -> impl Iterator<Item = Slot> {
        (bucket * SLOTS..(bucket + 1) * SLOTS).map(Slot::new)
    }

    /// The bucket of a slot.
    pub fn bucket(slot: Slot) -> usize {
        slot.index() / SLOTS
    }

    /// Key and value in a slot; `None` if it is empty.
    pub fn entry(&self, slot: Slot) -> Option<(Key, u32)> {
        self.read(slot).map(|(state, key)| (key, state.value()))
    }

    /// Takes an empty slot, writes the key, publishes it.
    fn claim(&self, slot: Slot, key: Key, value: u32) -> bool {
        let (line, base) = self.words(slot);
        let empty = State(line[base].load(Ordering::Relaxed));
        if empty.kind() != State::EMPTY {
            return false;
        }
        let version = empty.version() + 1;
        if !self.swap(slot, empty, State::new(State::BUSY, key.length, version, 0)) {
            return false;
        }
        // Pairs with the acquire fence in `read`: a reader that sees a word of the new key sees the slot busy.
        fence(Ordering::Release);
        line[base + 1].store((key.bits >> 64) as u64, Ordering::Relaxed);
        line[base + 2].store(key.bits as u64, Ordering::Relaxed);
        let live = State::new(State::LIVE, key.length, version, value);
        line[base].store(live.0, Ordering::Release);
        true
    }

    /// Changes the state of the slot while it holds `key`; false if it does not, or `next` says no.
    fn change(&self, slot: Slot, key: Key, next: impl Fn(State) -> Option<State>) -> bool {
        while let Some(state) = self.matches(slot, key) {
            let Some(to) = next(state) else {
                return false;
            };
            if self.swap(slot, state, to) {
                return true;
            }
        }
        false
    }

    /// The state of the slot if it is live and holds `key`.
    #[inline]
    fn matches(&self, slot: Slot, key: Key) -> Option<State> {
        let (line, base) = self.words(slot);
        let state = State(line[base].load(Ordering::Acquire));
        if state.kind() != State::LIVE || state.length() != key.length {
            return None;
        }
        let (state, found) = self.read(slot)?;
        (found == key).then_some(state)
    }

    /// State and key of a live slot, read as one.
    fn read(&self, slot: Slot) -> Option<(State, Key)> {
        let (line, base) = self.words(slot);
        loop {
            let before = State(line[base].load(Ordering::Acquire));
            if before.kind() != State::LIVE {
                return None;
            }
            let high = line[base + 1].load(Ordering::Relaxed);
            let low = line[base + 2].load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            let after = State(line[base].load(Ordering::Relaxed));
            if before.same_entry(after) {
                let bits = u128::from(high) << 64 | u128::from(low);
                return Some((
                    after,
                    Key {
                        bits,
                        length: after.length(),
                    },
                ));
            }
        }
    }

    fn swap(&self, slot: Slot, from: State, to: State) -> bool {
        let (line, base) = self.words(slot);
        line[base]
            .compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// The line of a slot and the index of its state word.
    #[inline]
    fn words(&self, slot: Slot) -> (&'static Line, usize) {
        (
            self.buckets.line(Self::bucket(slot)),
            1 + slot.index() % SLOTS * SLOT_WORDS,
        )
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
