//! Memory of our own: anonymous mappings that every later process inherits, or that one process has for itself.

use std::io;
use std::ptr;

use crate::memory::{Arena, AtomicU32, Line, OutOfMemory};

/// Maps zeroed memory. Pages that nobody touches cost nothing.
#[derive(Clone, Copy, Debug)]
pub enum Mapped {
    /// Later processes share it.
    Shared,
    /// For a program of one process. The first touch of a page costs the kernel about half of what it costs in shared
    /// memory, because no other process can look for that page.
    Private,
}

impl Arena for Mapped {
    fn lines(
        &mut self,
        purpose: &'static str,
        count: usize,
    ) -> Result<&'static [Line], OutOfMemory> {
        // SAFETY: a line is made of atomics only, for which any bytes, so also zeros, are valid.
        unsafe { map(*self, purpose, count) }
    }

    fn words(
        &mut self,
        purpose: &'static str,
        count: usize,
    ) -> Result<&'static [AtomicU32], OutOfMemory> {
        // SAFETY: as above.
        unsafe { map(*self, purpose, count) }
    }
}

/// # Safety
/// `T` must be made of atomics only: every process or thread writes to it.
unsafe fn map<T>(
    kind: Mapped,
    purpose: &'static str,
    count: usize,
) -> Result<&'static [T], OutOfMemory> {
    let sharing = match kind {
        Mapped::Shared => libc::MAP_SHARED,
        Mapped::Private => libc::MAP_PRIVATE,
    };
    let bytes = count.saturating_mul(size_of::<T>()).max(1);
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
    // SAFETY: the mapping is page-aligned, which covers `T`, `count` items long, zeroed, never unmapped,
    // and only ever used through atomics.
    Ok(unsafe { std::slice::from_raw_parts(start.cast(), count) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_an_error_that_names_the_purpose() {
        let error = Mapped::Shared
            .lines("the feed table", usize::MAX / 128)
            .map(|_| ())
            .unwrap_err();
        assert!(error.to_string().contains("the feed table"), "{error}");
        assert_eq!(Mapped::Shared.words("few", 3).unwrap().len(), 3);
    }
}
