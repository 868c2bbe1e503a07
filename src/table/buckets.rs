//! An open-addressed array of cache-line buckets that needs no tombstones.
//!
//! Word 0 of a bucket is its control word. The highest byte says how many entries had to go past this
//! bucket because it was full: a search goes on to the next bucket only if that count is not zero,
//! so a removed entry leaves nothing behind. The other seven bytes and the other seven words belong to
//! the table built on top.

use super::slot::Placed;
use crate::memory::{AtomicU64, Line, Ordering};

/// One entry that went past, in the highest byte of the control word.
const PASSED_ONE: u64 = 1 << 56;
/// The counter no longer counts.
const PASSED_MAX: u64 = 255;

/// How many entries went past the bucket with this control word.
#[inline]
pub const fn passed(control: u64) -> u64 {
    control >> 56
}

/// A search never looks at more buckets than this. At the load for which tables are sized the
/// entries that hash to any 128 neighbouring buckets exceed their room by chance with a probability
/// below 1e-12; an insert that does meet such a crowd reports a full table.
pub const PROBE_LIMIT: usize = 128;

/// The buckets of one table.
#[derive(Clone, Copy)]
pub struct Buckets {
    lines: &'static [Line],
}

impl Buckets {
    /// Wraps zeroed lines; there must be at least one.
    pub fn new(lines: &'static [Line]) -> Self {
        Buckets { lines }
    }

    /// Number of buckets.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// The bucket in which a search for this hash begins: the hash as a fraction, scaled to the length.
    #[inline]
    pub fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.lines.len() as u128) >> 64) as usize
    }

    /// The bucket `distance` steps from `home`.
    pub fn at(&self, home: usize, distance: usize) -> usize {
        let index = home + distance;
        if index < self.lines.len() {
            index
        } else {
            index % self.lines.len()
        }
    }

    /// Calls `look` with the buckets in which an entry of this hash may stand, and their distance from its home,
    /// until it answers.
    #[inline]
    pub fn search<T>(
        &self,
        hash: u64,
        mut look: impl FnMut(usize, usize) -> Option<T>,
    ) -> Option<T> {
        let home = self.home(hash);
        for distance in 0..self.reach() {
            let bucket = self.at(home, distance);
            let answer = look(bucket, distance);
            // The count is read after the slots: an entry that still stands further on is still counted.
            if answer.is_some() || !self.overflowed(bucket) {
                return answer;
            }
        }
        None
    }

    /// Offers the buckets of this hash to `place_in` until one of them takes the entry or has it, and keeps
    /// the counts of entries that went past.
    pub fn place(&self, hash: u64, mut place_in: impl FnMut(usize) -> Placed) -> Placed {
        let home = self.home(hash);
        for distance in 0..self.reach() {
            let bucket = self.at(home, distance);
            match place_in(bucket) {
                Placed::Full => self.pass(bucket),
                Placed::Known => {
                    self.unpass(home, distance);
                    return Placed::Known;
                }
                placed => return placed,
            }
        }
        self.unpass(home, self.reach());
        Placed::Full
    }

    /// How far a search may go: every bucket once, at most [`PROBE_LIMIT`].
    pub fn reach(&self) -> usize {
        self.lines.len().min(PROBE_LIMIT)
    }

    /// The words of one bucket.
    #[inline]
    pub fn line(&self, bucket: usize) -> &'static Line {
        &self.lines[bucket]
    }

    /// The words of one bucket; `None` beyond the last.
    #[inline]
    pub fn get(&self, bucket: usize) -> Option<&'static Line> {
        self.lines.get(bucket)
    }

    /// The control word of a bucket.
    #[inline]
    pub fn control(&self, bucket: usize) -> &'static AtomicU64 {
        &self.lines[bucket][0]
    }

    /// True if some entry went past this bucket.
    #[inline]
    pub fn overflowed(&self, bucket: usize) -> bool {
        passed(self.control(bucket).load(Ordering::Acquire)) != 0
    }

    /// Announces an entry that goes past `bucket`; done before the entry is placed.
    fn pass(&self, bucket: usize) {
        self.count(bucket, |control| control + PASSED_ONE);
    }

    /// Takes back the announcements of an entry at `distance` from `home`; done after it is gone.
    pub fn unpass(&self, home: usize, distance: usize) {
        for step in 0..distance {
            self.count(self.at(home, step), |control| control - PASSED_ONE);
        }
    }

    fn count(&self, bucket: usize, change: impl Fn(u64) -> u64) {
        let step = |control| (passed(control) != PASSED_MAX).then(|| change(control));
        // Refused only by a full counter, which stays full: a search more, never one too few.
        let _ = self
            .control(bucket)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
    }

    /// Takes back the announcements of an entry of this hash that stood in `bucket`.
    pub fn leave(&self, bucket: usize, hash: u64) {
        let home = self.home(hash);
        self.unpass(home, (bucket + self.len() - home) % self.len());
    }
}
