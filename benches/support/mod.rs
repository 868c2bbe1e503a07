//! What the benchmarks share: memory as the module has it, timing, and a source of numbers.

// Every benchmark compiles this module and uses its own part of it.
#![allow(dead_code)]
// The module's own mapping is private to the folder that speaks C; this is its equal.
#![allow(unsafe_code)]

use std::ptr;
use std::time::Instant;

use apiban::memory::{Arena, AtomicU32, Line, OutOfMemory};

/// Shared anonymous memory, as in `src/kamailio/shm.rs`; knows what it mapped.
#[derive(Default)]
pub struct MappedArena {
    mapped: Vec<(usize, usize)>,
}

impl MappedArena {
    fn map<T>(&mut self, count: usize) -> &'static [T] {
        let bytes = (count * size_of::<T>()).max(1);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED);
        self.mapped.push((start as usize, bytes));
        // SAFETY: page-aligned, `count` items long, never unmapped; both callers' items are atomics, for
        // which zeros are valid.
        unsafe { std::slice::from_raw_parts(start.cast(), count) }
    }

    /// Bytes of the pages that were touched.
    pub fn touched(&self) -> usize {
        self.mapped
            .iter()
            .map(|&(start, bytes)| {
                let mut pages = vec![0u8; bytes.div_ceil(4096)];
                // SAFETY: our own mapping, and one byte of answer for each of its pages.
                let done =
                    unsafe { libc::mincore(start as *mut _, bytes, pages.as_mut_ptr().cast()) };
                assert_eq!(done, 0);
                pages.iter().filter(|&&page| page & 1 == 1).count() * 4096
            })
            .sum()
    }
}

impl Arena for MappedArena {
    fn lines(&mut self, _: &'static str, count: usize) -> Result<&'static [Line], OutOfMemory> {
        Ok(self.map(count))
    }

    fn words(
        &mut self,
        _: &'static str,
        count: usize,
    ) -> Result<&'static [AtomicU32], OutOfMemory> {
        Ok(self.map(count))
    }
}

/// Well mixed numbers that are the same on every run; a bijection, so that different `n` never collide.
pub fn scatter(n: u32) -> u32 {
    let mut x = n.wrapping_mul(0x9e37_79b1);
    x ^= x >> 15;
    x = x.wrapping_mul(0x85eb_ca77);
    x ^= x >> 13;
    x
}

/// Runs of which the median counts: many short ones, so that a busy machine does not interrupt most of them.
pub const RUNS: usize = 41;

/// Median nanoseconds of one of `count` operations that `work` does.
pub fn median_ns(count: usize, mut work: impl FnMut()) -> f64 {
    median(|| {
        let start = Instant::now();
        work();
        start.elapsed().as_nanos() as f64 / count as f64
    })
}

/// Median of what [`RUNS`] runs of `one` measure themselves.
pub fn median(one: impl FnMut() -> f64) -> f64 {
    let mut runs: Vec<f64> = std::iter::repeat_with(one).take(RUNS).collect();
    runs.sort_by(f64::total_cmp);
    runs[RUNS / 2]
}
