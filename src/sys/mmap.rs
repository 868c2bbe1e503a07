//! Memory of our own: anonymous mappings that every later process inherits, or that one process has for itself.

use std::io;
use std::ptr;

use crate::memory::{Arena, AtomicU32, Line, OutOfMemory};

/// Maps zeroed memory that later processes share. Pages that nobody touches cost nothing.
#[derive(Default)]
pub struct SharedArena;

/// Maps zeroed memory for a program of one process. The first touch of a page costs the kernel about half of what
/// it costs in [`SharedArena`], because no other process can look for that page.
#[derive(Default)]
pub struct PrivateArena;

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

impl Arena for PrivateArena {
    fn lines(
        &mut self,
        purpose: &'static str,
        count: usize,
    ) -> Result<&'static [Line], OutOfMemory> {
        // SAFETY: a line is made of atomics only, for which any bytes, so also zeros, are valid.
        unsafe { map(purpose, count, libc::MAP_PRIVATE) }
    }

    fn words(
        &mut self,
        purpose: &'static str,
        count: usize,
    ) -> Result<&'static [AtomicU32], OutOfMemory> {
        // SAFETY: as above.
        unsafe { map(purpose, count, libc::MAP_PRIVATE) }
    }
}

/// # Safety
/// `T` must be made of atomics only: every process or thread writes to it.
unsafe fn map<T>(
    purpose: &'static str,
    count: usize,
    kind: libc::c_int,
) -> Result<&'static [T], OutOfMemory> {
    let bytes = count.saturating_mul(size_of::<T>()).max(1);
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            kind | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
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
}
