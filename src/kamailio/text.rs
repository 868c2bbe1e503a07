//! Text between C and Rust.

use std::ffi::{c_char, CStr, CString};

use super::bindings::str_;

/// The bytes of a Kamailio `str`; empty if it holds nothing.
///
/// # Safety
/// `text` must be valid, and what it points to must stay so for `'a`.
pub unsafe fn bytes<'a>(text: &str_) -> &'a [u8] {
    if text.s.is_null() || text.len <= 0 {
        return &[];
    }
    // SAFETY: a `str` with a pointer and a positive length describes that many bytes; the caller
    // vouches for their lifetime.
    unsafe { std::slice::from_raw_parts(text.s.cast(), text.len as usize) }
}

/// The text of a NUL-terminated C string; `None` for NULL or bytes that are not UTF-8.
///
/// # Safety
/// `text` must be NULL or NUL-terminated and stay valid for `'a`.
pub unsafe fn from_c<'a>(text: *const c_char) -> Option<&'a str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not NULL, and the caller vouches for termination and lifetime.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}

/// A NUL-terminated copy; NUL bytes inside are left out.
pub fn to_c(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

/// A NUL-terminated copy that is never freed: for tables that Kamailio keeps.
pub fn leak(text: &str) -> *const c_char {
    to_c(text).into_raw()
}

/// A `str` over a NUL-terminated copy that is never freed.
pub fn leak_str(text: &str) -> str_ {
    str_ {
        s: leak(text).cast_mut(),
        len: text.len() as i32,
    }
}
