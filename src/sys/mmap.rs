//! Memory of our own: anonymous mappings, which every later process inherits or which one process has alone.

use std::io;
use std::ptr;

use crate::memory::{Arena, AtomicU32, Line, OutOfMemory};

/// Maps zeroed memory. Pages that nobody touches cost nothing.
#[derive(Default)]
pub struct SharedArena;

impl Arena for SharedArena {
    fn lines(
        &mut self,
        purpose: &'static str,
        count: usize,
    ) -> Result<&'static [Line], OutOfMemory> {
        // SAFETY: a line is made of atomics only, for which any bytes, so also zeros, are valid.
        unsafe { map(purpose, count, libc::MAP_SHARED) }
    }

    fn words(
        &mut self,
        purpose: &'static str,
        count: usize,
    ) -> Result<&'static [AtomicU32], OutOfMemory> {
        // SAFETY: as above.
        unsafe { map(purpose, count, libc::MAP_SHARED) }
    }
}

/// The same for a process that has it alone and touches most of it soon: so much is made ready at once. A process that
/// lives for a moment would else spend a third of it on one page after another.
#[derive(Default)]
pub struct OwnArena;

/// At most so many bytes of a mapping of [`OwnArena`] are made ready at once.
const READY: usize = 16 << 20;

impl Arena for OwnArena {
    fn lines(
        &mut self,
        purpose: &'static str,
        count: usize,
    ) -> Result<&'static [Line], OutOfMemory> {
        // SAFETY: as above.
        unsafe { map(purpose, count, libc::MAP_PRIVATE) }.inspect(|lines| make_ready(lines))
    }

    fn words(
        &mut self,
        purpose: &'static str,
        count: usize,
    ) -> Result<&'static [AtomicU32], OutOfMemory> {
        // SAFETY: as above.
        unsafe { map(purpose, count, libc::MAP_PRIVATE) }.inspect(|words| make_ready(words))
    }
}

/// Has the kernel make the pages of a mapping, large ones if it has them. A kernel that does not know how makes
/// them as they are touched.
fn make_ready<T>(mapping: &'static [T]) {
    let start = mapping.as_ptr().cast_mut().cast();
    let bytes = size_of_val(mapping);
    for advice in [libc::MADV_HUGEPAGE, libc::MADV_POPULATE_WRITE] {
        // SAFETY: a mapping of ours from its first page on; both kinds of advice leave what it holds as it is.
        unsafe { libc::madvise(start, bytes.min(READY), advice) };
    }
}

/// # Safety
/// `T` must be made of atomics only: every process, or thread, writes to it.
unsafe fn map<T>(
    purpose: &'static str,
    count: usize,
    whose: libc::c_int,
) -> Result<&'static [T], OutOfMemory> {
    let bytes = count.saturating_mul(size_of::<T>()).max(1);
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            whose | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
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
    // SAFETY: the mapping is page-aligned, which covers `T`, `count` items long, zeroed, never unmapped,
    // and only ever used through atomics.
    Ok(unsafe { std::slice::from_raw_parts(start.cast(), count) })
}

#[cfg(test)]
mod tests {
    use crate::memory::Ordering;

    use super::*;

    #[test]
    fn too_much_is_an_error_that_names_the_purpose() {
        let error = SharedArena
            .lines("the feed table", usize::MAX / 128)
            .map(|_| ())
            .unwrap_err();
        assert!(error.to_string().contains("the feed table"), "{error}");
        assert_eq!(SharedArena.words("few", 3).unwrap().len(), 3);
    }

    #[test]
    fn what_a_process_has_alone_is_there_and_zero() {
        let lines = OwnArena.lines("a table", 1 << 12).unwrap();
        assert_eq!(lines.len(), 1 << 12);
        let words = OwnArena.words("few", 3).unwrap();
        assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }
}
