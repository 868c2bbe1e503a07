//! The prefix lengths in use: a lookup probes for these only.
//!
//! For each length a bit says that it was ever used, and a counter how many entries have it now. A writer
//! counts before it places an entry, and takes it off after the entry is gone. So the count of an entry that
//! can be found is never 0, and no lookup misses it; a length that is no longer used costs no probe. A writer
//! that dies in between leaves a count too high: a probe too many.

use crate::memory::{Arena, AtomicU32, Line, Ordering, OutOfMemory};

/// Counters: one for each length of either family. Lengths that share a counter would only cost probes; the
/// model checker gets two, because each word costs it time.
const COUNTERS: usize = if cfg!(loom) { 2 } else { 32 + 128 };

// Words of the line of bits.
const V4: usize = 0;
const V6: usize = 1; // lengths 1 to 64, and in the next word 65 to 128

/// The lengths of one table.
#[derive(Clone, Copy)]
pub struct Lengths {
    /// Bit `n` of a word: the length `first of the word + n` was ever used.
    used: &'static Line,
    counts: &'static [AtomicU32],
}

/// A prefix length of one family, 1 to 32 or 1 to 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// True for IPv4.
    pub is_v4: bool,
    /// In bits.
    pub bits: u8,
}

impl Length {
    /// Index of the counter.
    #[inline]
    fn counter(self) -> usize {
        let first = if self.is_v4 { 0 } else { 32 };
        (first + usize::from(self.bits) - 1) % COUNTERS
    }

    /// Word and bit in [`Lengths::used`].
    fn place(self) -> (usize, u64) {
        let bit = u32::from(self.bits) - 1;
        match self.is_v4 {
            true => (V4, 1 << bit),
            false => (V6 + bit as usize / 64, 1 << (bit % 64)),
        }
    }
}

impl Lengths {
    /// None in use.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn new(arena: &mut dyn Arena, purpose: &'static str) -> Result<Self, OutOfMemory> {
        Ok(Lengths {
            used: &arena.lines(purpose, 1)?[0],
            counts: arena.words(purpose, COUNTERS)?,
        })
    }

    /// An entry of this length is going to be placed.
    pub fn enter(&self, length: Length) {
        self.counts[length.counter()].fetch_add(1, Ordering::AcqRel);
        let (word, bit) = length.place();
        if self.used[word].load(Ordering::Relaxed) & bit == 0 {
            self.used[word].fetch_or(bit, Ordering::AcqRel);
        }
    }

    /// `entries` of this length are gone, or were not placed.
    pub fn leave(&self, length: Length, entries: usize) {
        self.counts[length.counter()].fetch_sub(entries as u32, Ordering::AcqRel);
    }

    /// The first answer of `probe`, which is asked for each length in use, the longest first.
    #[inline]
    pub fn find<T>(&self, is_v4: bool, mut probe: impl FnMut(u8) -> Option<T>) -> Option<T> {
        let words: &[(usize, u8)] = if is_v4 {
            &[(V4, 0)]
        } else {
            &[(V6 + 1, 64), (V6, 0)]
        };
        for &(word, before) in words {
            let mut used = self.used[word].load(Ordering::Relaxed);
            while used != 0 {
                let bit = 63 - used.leading_zeros() as u8;
                used &= !(1 << bit);
                let bits = before + bit + 1;
                let counter = Length { is_v4, bits }.counter();
                if self.counts[counter].load(Ordering::Relaxed) != 0 {
                    if let Some(answer) = probe(bits) {
                        return Some(answer);
                    }
                }
            }
        }
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::memory::HeapArena;

    #[test]
    fn a_length_is_probed_while_an_entry_has_it() {
        let lengths = Lengths::new(&mut HeapArena, "a test").unwrap();
        let all = |is_v4: bool| {
            let most = if is_v4 { 32 } else { 128 };
            (1..=most).map(move |bits| Length { is_v4, bits })
        };
        let probed = |is_v4| {
            let mut probed = Vec::new();
            lengths.find(is_v4, |bits| {
                probed.push(bits);
                None::<()>
            });
            probed
        };
        for length in all(true).chain(all(false)) {
            lengths.enter(length);
            lengths.enter(length);
            assert_eq!(probed(length.is_v4), [length.bits]);
            assert!(probed(!length.is_v4).is_empty());
            lengths.leave(length, 1);
            assert_eq!(probed(length.is_v4), [length.bits]);
            lengths.leave(length, 1);
            assert!(probed(length.is_v4).is_empty());
        }
        all(false).for_each(|length| lengths.enter(length));
        assert!(probed(false).into_iter().eq((1..=128).rev()));
    }
}
