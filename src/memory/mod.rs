//! The atomics of the shared structures, exchangeable for those of the `loom` model checker.
//!
//! Why atomics of the language work between processes: the lock-free ones are plain machine
//! instructions on the memory itself, with no state outside it, so a shared mapping serves as well as a
//! shared heap. All code that touches shared memory goes through these types; nobody ever takes a
//! reference to a shared byte in another way.

#[cfg(loom)]
mod model;
mod pages;

use std::ops::Index;

#[cfg(loom)]
pub use loom::sync::atomic::fence;
#[cfg(all(test, loom))]
pub use model::explore;
#[cfg(loom)]
pub use model::{AtomicU32, AtomicU64};
pub use std::sync::atomic::Ordering;
#[cfg(not(loom))]
pub use std::sync::atomic::{fence, AtomicU32, AtomicU64};

pub use pages::WrittenPages;

/// The page size of the machines that this module supports, in bytes. Where pages are larger, memory is used
/// in larger steps.
pub const PAGE_BYTES: usize = 4096;
/// Words in a cache line.
pub const LINE_WORDS: usize = if cfg!(loom) { 5 } else { 8 };

/// One cache line of shared memory: 64 bytes on every machine this module supports.
#[repr(C, align(64))]
pub struct Line(pub [AtomicU64; LINE_WORDS]);

impl Index<usize> for Line {
    type Output = AtomicU64;

    #[inline(always)]
    fn index(&self, word: usize) -> &AtomicU64 {
        &self.0[word]
    }
}

impl Default for Line {
    fn default() -> Self {
        Line(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// Where shared structures get their zeroed memory: a shared mapping in Kamailio, the heap in tests.
pub trait Arena {
    /// `count` zeroed cache lines that live as long as the process. `purpose` names them in the error.
    fn lines(
        &mut self,
        purpose: &'static str,
        count: usize,
    ) -> Result<&'static [Line], OutOfMemory>;
    /// `count` zeroed 32-bit words, likewise.
    fn words(
        &mut self,
        purpose: &'static str,
        count: usize,
    ) -> Result<&'static [AtomicU32], OutOfMemory>;
}

/// Shared memory could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot map {bytes} bytes of shared memory for {purpose}: {reason}")]
pub struct OutOfMemory {
    /// What the memory was for.
    pub purpose: &'static str,
    /// How much was asked for.
    pub bytes: usize,
    /// The system's error text.
    pub reason: String,
}

/// Memory of this process only, never freed: for tests, benchmarks and the command line tool.
#[derive(Default)]
pub struct HeapArena;

impl Arena for HeapArena {
    fn lines(&mut self, _: &'static str, count: usize) -> Result<&'static [Line], OutOfMemory> {
        Ok(Box::leak((0..count).map(|_| Line::default()).collect()))
    }

    fn words(
        &mut self,
        _: &'static str,
        count: usize,
    ) -> Result<&'static [AtomicU32], OutOfMemory> {
        Ok(Box::leak((0..count).map(|_| AtomicU32::new(0)).collect()))
    }
}
