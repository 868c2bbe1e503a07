//! The version check at load time: one file for every supported release.
//!
//! Kamailio compares two strings of a module with its own and refuses a module built for another
//! release. As this file is built for several, it takes over that check: it looks at the release that
//! runs, and fills the strings in only if `tests/abi` has verified the layout of that release. On any other
//! release the version string says which are supported; Kamailio prints it and stops.

use std::ffi::{c_char, c_void, CStr};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::bindings as k;
use super::text;

/// The releases whose layout has been verified, as prefixes of the version.
const RELEASES: [&str; 3] = ["5.6.", "6.0.", "6.1."];
const REFUSAL: &CStr = c"apiban.so, which supports Kamailio 5.6, 6.0 and 6.1 only";

/// What the core exports in `ver_flags` and does not compare. 6.1 has the first three: see the notes on `ver_flags` in
/// core.h. On aarch64 no supported release has futex locks, but only the files of the core that use a lock know that.
const EXPORTED_ONLY: &[&str] = &[
    ", DBG_QM_MALLOC",
    ", DBG_F_MALLOC",
    ", DBG_TLSF_MALLOC",
    #[cfg(target_arch = "aarch64")]
    ", USE_FUTEX",
];

/// What the core compares with its own version line.
#[no_mangle]
#[allow(non_upper_case_globals, reason = "the name that Kamailio looks up")]
pub static module_version: AtomicPtr<c_char> = AtomicPtr::new(REFUSAL.as_ptr().cast_mut());

/// What the core compares with its own compile flags.
#[no_mangle]
#[allow(non_upper_case_globals, reason = "the name that Kamailio looks up")]
pub static module_flags: AtomicPtr<c_char> = AtomicPtr::new(REFUSAL.as_ptr().cast_mut());

/// Run by the dynamic loader. It names no symbol of Kamailio: tests and tools, which have none, must link and
/// start as well.
#[used]
#[link_section = ".init_array"]
static ON_LOAD: extern "C" fn() = on_load;

extern "C" fn on_load() {
    // SAFETY: the loader runs this once, before anybody else can use the module; the symbols are looked
    // up by the names and used with the types that tests/abi verifies.
    if let Some((version, flags)) = unsafe { core_strings() } {
        module_version.store(version.cast_mut(), Ordering::Relaxed);
        module_flags.store(flags.cast_mut(), Ordering::Relaxed);
    }
}

/// Version and flags as this core expects them; `None` outside Kamailio and on any other release.
unsafe fn core_strings() -> Option<(*const c_char, *const c_char)> {
    // SAFETY: `ver_*` are NUL-terminated arrays of the core; a module in the list of the core was
    // loaded before us, so it has both variables.
    unsafe {
        let release = text::from_c(symbol(libc::RTLD_DEFAULT, c"ver_version").cast())?;
        if !RELEASES.iter().any(|known| release.starts_with(known)) {
            return None;
        }
        if let Some(strings) = loaded_module_strings() {
            return Some(strings);
        }
        let part = |name: &CStr| text::from_c(symbol(libc::RTLD_DEFAULT, name).cast::<c_char>());
        let version = format!(
            "{} {} ({}/{})",
            part(c"ver_name")?,
            release,
            part(c"ver_arch")?,
            part(c"ver_os")?
        );
        let mut flags = part(c"ver_flags")?.to_owned();
        for extra in EXPORTED_ONLY {
            flags = flags.replace(extra, "");
        }
        Some((text::leak(&version), text::leak(&flags)))
    }
}

/// The strings of the first module in the core's list: it passed the same check.
unsafe fn loaded_module_strings() -> Option<(*const c_char, *const c_char)> {
    // SAFETY: the function is the core's own; the list it returns is valid while modules are loaded.
    unsafe {
        let list = symbol(libc::RTLD_DEFAULT, c"get_loaded_modules");
        if list.is_null() {
            return None;
        }
        let list: extern "C" fn() -> *mut k::sr_module_t = std::mem::transmute(list);
        let first = list().as_ref()?;
        let variable = |name: &CStr| {
            let variable: *const *const c_char = symbol(first.handle, name).cast();
            variable.as_ref().copied().filter(|text| !text.is_null())
        };
        Some((variable(c"module_version")?, variable(c"module_flags")?))
    }
}

unsafe fn symbol(handle: *mut c_void, name: &CStr) -> *mut c_void {
    // SAFETY: a valid handle, or the default one, and a NUL-terminated name.
    let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
    if found.is_null() {
        // Clears the error text: the core reports the last one.
        // SAFETY: always callable.
        unsafe { libc::dlerror() };
        return ptr::null_mut();
    }
    found
}

/// The release that runs, for `apiban.status`; empty outside Kamailio.
pub fn release() -> String {
    // SAFETY: as in `core_strings`.
    unsafe { text::from_c(symbol(libc::RTLD_DEFAULT, c"ver_version").cast()) }
        .unwrap_or_default()
        .to_owned()
}
