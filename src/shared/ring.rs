//! A bounded queue in shared memory: many processes put in, one takes out, nobody waits.
//!
//! Each slot carries a sequence number that says whose turn it is (D. Vyukov's bounded queue): a
//! producer claims a slot by advancing the tail, writes it, and hands it over by its number. If the
//! queue is full the item is dropped, and the queue remembers that one was. All that is queued can also be
//! read from the tables, so the consumer then reads those.

use crate::memory::{Arena, Line, Ordering, OutOfMemory, LINE_WORDS};

// Words of the header line.
const TAIL: usize = 0;
const HEAD: usize = 1;
const DROPPED: usize = 2;
const PENDING: usize = 3;

/// A queue of items of up to `LINES * 8 - 1` words.
#[derive(Clone, Copy)]
pub struct Ring<const LINES: usize> {
    header: &'static Line,
    slots: &'static [Line],
    capacity: usize,
}

impl<const LINES: usize> Ring<LINES> {
    /// A queue for `capacity` items, a power of two.
    pub fn new(
        arena: &mut dyn Arena,
        purpose: &'static str,
        capacity: usize,
    ) -> Result<Self, OutOfMemory> {
        debug_assert!(capacity.is_power_of_two());
        Ok(Ring {
            header: &arena.lines(purpose, 1)?[0],
            slots: arena.lines(purpose, capacity * LINES)?,
            capacity,
        })
    }

    fn slot(&self, position: u64) -> &'static [Line] {
        let index = position as usize % self.capacity;
        &self.slots[index * LINES..][..LINES]
    }

    /// The lap of a position, doubled: a slot waits for a producer at `2 * lap`, for the consumer at
    /// `2 * lap + 1`. Zeroed memory is lap 0.
    fn turn(&self, position: u64) -> u64 {
        position / self.capacity as u64 * 2
    }

    /// Adds an item; words that are not given keep what they had. False if the queue is full.
    pub fn push(&self, words: impl IntoIterator<Item = u64>) -> bool {
        let tail = &self.header[TAIL];
        let mut position = tail.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(position);
            let turn = slot[0][0].load(Ordering::Acquire);
            let mine = self.turn(position);
            if turn == mine {
                match tail.compare_exchange_weak(
                    position,
                    position + 1,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        for (word, value) in slot.iter().flat_map(|line| &line.0).skip(1).zip(words)
                        {
                            word.store(value, Ordering::Relaxed);
                        }
                        slot[0][0].store(mine + 1, Ordering::Release);
                        return true;
                    }
                    Err(now) => position = now,
                }
            } else if turn < mine {
                self.header[DROPPED].store(1, Ordering::Release);
                return false;
            } else {
                position = tail.load(Ordering::Relaxed);
            }
        }
    }

    /// Takes the oldest item and shows its words to `take`. One process only may call this.
    pub fn pop<T>(&self, take: impl FnOnce(&mut dyn Iterator<Item = u64>) -> T) -> Option<T> {
        let head = &self.header[HEAD];
        let position = head.load(Ordering::Relaxed);
        let slot = self.slot(position);
        let mine = self.turn(position);
        if slot[0][0].load(Ordering::Acquire) != mine + 1 {
            return None;
        }
        let mut words = slot
            .iter()
            .flat_map(|line| &line.0)
            .skip(1)
            .map(|word| word.load(Ordering::Relaxed));
        let item = take(&mut words);
        slot[0][0].store(mine + 2, Ordering::Release);
        head.store(position + 1, Ordering::Relaxed);
        Some(item)
    }

    /// True if items were dropped since the last call.
    pub fn take_dropped(&self) -> bool {
        self.header[DROPPED].swap(0, Ordering::AcqRel) != 0
    }

    /// Announces work; true if the consumer must be woken, false if somebody has done that.
    pub fn announce(&self) -> bool {
        self.header[PENDING].swap(1, Ordering::AcqRel) == 0
    }

    /// The consumer is awake: from here on the next [`Ring::announce`] wakes it again. Called before
    /// the queue is emptied.
    pub fn awake(&self) {
        self.header[PENDING].swap(0, Ordering::AcqRel);
    }

    /// How many words an item has.
    pub const WORDS: usize = LINES * LINE_WORDS - 1;
}

#[cfg(all(test, loom))]
mod model;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::memory::HeapArena;

    fn ring() -> Ring<1> {
        Ring::new(&mut HeapArena, "a test", 8).unwrap()
    }

    #[test]
    fn first_in_first_out_and_full_is_told() {
        let ring = ring();
        for lap in 0..5u64 {
            for n in 0..8 {
                assert!(ring.push([lap * 8 + n, 7]));
            }
            assert!(!ring.push([99]));
            assert!(ring.take_dropped() && !ring.take_dropped());
            for n in 0..8 {
                assert_eq!(ring.pop(|words| words.next().unwrap()), Some(lap * 8 + n));
            }
            assert_eq!(ring.pop(|_| ()), None);
        }
    }

    #[test]
    fn one_wakes_for_many() {
        let ring = ring();
        assert!(ring.announce() && !ring.announce());
        ring.awake();
        assert!(ring.announce());
    }

    #[test]
    fn nothing_is_lost_or_mixed_between_threads() {
        let ring = ring();
        let mut sums = [0u64; 2];
        std::thread::scope(|scope| {
            for producer in 0..2u64 {
                scope.spawn(move || {
                    for n in 1..=5000u64 {
                        while !ring.push([producer, n, n * 3]) {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut taken = 0;
            while taken < 10_000 {
                let item = ring.pop(|words| {
                    (
                        words.next().unwrap(),
                        words.next().unwrap(),
                        words.next().unwrap(),
                    )
                });
                let Some((producer, n, triple)) = item else {
                    std::thread::yield_now();
                    continue;
                };
                assert_eq!(triple, n * 3);
                sums[producer as usize] += n;
                taken += 1;
            }
        });
        assert_eq!(sums, [5000 * 5001 / 2; 2]);
    }
}
