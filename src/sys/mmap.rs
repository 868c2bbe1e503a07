//! Memory of our own: anonymous mappings that every later process inherits, or that one process has for itself.

use std::ffi::c_int;
use std::io;
use std::ptr;
use std::slice;

use crate::memory::{Arena, AtomicU32, Line, OutOfMemory, PAGE_BYTES};

/// Most bytes of a request that is served from a page together with others.
const SMALL: usize = PAGE_BYTES / 2;

/// Maps zeroed memory. Pages that nobody touches cost nothing.
///
/// Small requests share pages. If each had a page of its own, all would begin at the same offset, for which an L1 cache
/// has eight lines or so, and each would take an entry of the TLB: a check reads five of them.
pub struct Mapped {
    /// `MAP_SHARED` or `MAP_PRIVATE`.
    sharing: c_int,
    /// What is left of the page for small requests.
    rest: &'static [Line],
}

impl Mapped {
    /// Memory that later processes share.
    pub fn shared() -> Self {
        Mapped {
            sharing: libc::MAP_SHARED,
            rest: &[],
        }
    }

    /// Memory for a program of one process. The first touch of a page costs the kernel about half of what it costs in
    /// shared memory, because no other process can look for that page.
    pub fn private() -> Self {
        Mapped {
            sharing: libc::MAP_PRIVATE,
            rest: &[],
        }
    }

    /// `bytes` zeroed bytes from the beginning of a line on.
    fn take(
        &mut self,
        purpose: &'static str,
        bytes: usize,
    ) -> Result<&'static [Line], OutOfMemory> {
        let count = bytes.div_ceil(size_of::<Line>());
        if bytes > SMALL {
            return map(self.sharing, purpose, count);
        }
        if count > self.rest.len() {
            self.rest = map(self.sharing, purpose, PAGE_BYTES / size_of::<Line>())?;
        }
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(taken)
    }
}

impl Arena for Mapped {
    fn lines(
        &mut self,
        purpose: &'static str,
        count: usize,
    ) -> Result<&'static [Line], OutOfMemory> {
        self.take(purpose, count.saturating_mul(size_of::<Line>()))
    }

    fn words(
        &mut self,
        purpose: &'static str,
        count: usize,
    ) -> Result<&'static [AtomicU32], OutOfMemory> {
        let lines = self.take(purpose, count.saturating_mul(size_of::<AtomicU32>()))?;
        // SAFETY: the lines have room for `count` words and their alignment, nobody else has them, and any bytes are a
        // valid atomic.
        Ok(unsafe { slice::from_raw_parts(lines.as_ptr().cast(), count) })
    }
}

/// A new mapping of `count` zeroed lines.
fn map(
    sharing: c_int,
    purpose: &'static str,
    count: usize,
) -> Result<&'static [Line], OutOfMemory> {
    let bytes = count.saturating_mul(size_of::<Line>());
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            sharing | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(OutOfMemory {
            purpose,
            bytes,
            reason: io::Error::last_os_error().to_string(),
        });
    }
    // Kamailio raises the core limit: the tables would be in the dump of every process.
    // SAFETY: our own mapping. Failing is harmless.
    unsafe { libc::madvise(start, bytes, libc::MADV_DONTDUMP) };
    // SAFETY: the mapping is page-aligned, which covers a line, `count` lines long, zeroed, never unmapped, and only
    // ever used through atomics, for which any bytes are valid.
    Ok(unsafe { slice::from_raw_parts(start.cast(), count) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Ordering;

    #[test]
    fn too_much_is_an_error_that_names_the_purpose() {
        let error = Mapped::shared()
            .lines("the feed table", usize::MAX / 128)
            .map(|_| ())
            .unwrap_err();
        assert!(error.to_string().contains("the feed table"), "{error}");
    }

    /// Small requests share pages, and no two of them a line.
    #[test]
    fn what_is_asked_for_is_apart_and_zeroed() {
        let mut arena = Mapped::private();
        let mut pages = std::collections::HashSet::new();
        let mut seen = Vec::new();
        for round in 0..100 {
            let words = arena.words("few", 1 + round).unwrap();
            let lines = arena.lines("a line", 1).unwrap();
            assert_eq!((words.len(), lines.len()), (1 + round, 1));
            assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
            assert!(lines[0]
                .0
                .iter()
                .all(|word| word.load(Ordering::Relaxed) == 0));
            words
                .iter()
                .for_each(|word| word.store(7, Ordering::Relaxed));
            lines[0]
                .0
                .iter()
                .for_each(|word| word.store(7, Ordering::Relaxed));
            for (start, bytes) in [
                (words.as_ptr().addr(), size_of_val(words)),
                (lines.as_ptr().addr(), size_of_val(lines)),
            ] {
                assert_eq!(start % size_of::<Line>(), 0);
                pages.insert(start / PAGE_BYTES);
                seen.push((start, start + bytes.next_multiple_of(size_of::<Line>())));
            }
        }
        seen.sort_unstable();
        assert!(seen.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        assert!(pages.len() < 20, "{} pages", pages.len());
        // A large one begins a page of its own.
        let large = arena.lines("many lines", 1000).unwrap();
        assert_eq!(large.as_ptr().addr() % PAGE_BYTES, 0);
        assert_eq!(arena.words("none", 0).unwrap().len(), 0);
    }
}
