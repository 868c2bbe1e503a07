//! The text of pseudo-variables, and of script parameters that may hold some.

use std::ffi::{c_char, c_void};
use std::ptr;

use super::bindings as k;
use super::text;

/// The text of a variable, valid until the next one is evaluated; empty if it is undefined.
///
/// # Safety
/// `msg` must be the message of this call and `spec` a parsed specification.
pub unsafe fn variable<'a>(msg: *mut k::sip_msg_t, spec: *mut k::pv_spec_t) -> Option<&'a [u8]> {
    // SAFETY: zeros are a value without text, with room for every release.
    unsafe {
        let mut value: k::pv_value_t = std::mem::zeroed();
        (k::pv_get_spec_value(msg, spec, &mut value) == 0).then(|| text::bytes(&value.rs))
    }
}

/// The text in a parameter that `fixup_spve_all` fixed, valid until the next one is evaluated.
///
/// # Safety
/// `msg` must be the message of this call and `fixed` what that fixup made, or NULL.
pub unsafe fn parameter<'a>(msg: *mut k::sip_msg_t, fixed: *mut c_void) -> Option<&'a [u8]> {
    // SAFETY: the caller's.
    unsafe {
        let fixed = fixed.cast::<k::fparam_t>().as_mut()?;
        if let Some(spec) = only_variable(fixed) {
            return variable(msg, spec);
        }
        let mut value = k::str_ {
            s: ptr::null_mut::<c_char>(),
            len: 0,
        };
        (k::get_str_fparam(&mut value, msg, fixed) == 0).then(|| text::bytes(&value))
    }
}

/// The text of a parameter that `fixup_spve_all` fixed, if it holds no variable.
///
/// # Safety
/// `fixed` must be what that fixup made, or NULL, and live as long as the text is used.
pub unsafe fn constant<'a>(fixed: *mut c_void) -> Option<&'a [u8]> {
    // SAFETY: the caller's; the type says which member of the union is set.
    unsafe {
        let fixed = fixed.cast::<k::fparam_t>().as_ref()?;
        (fixed.type_ == k::FPARAM_STR).then(|| text::bytes(&fixed.v.str_))
    }
}

/// The variable, if the parameter is a single variable without text around it. The core would print it into a
/// buffer, which costs more than all the rest of a check.
unsafe fn only_variable(fixed: &k::fparam_t) -> Option<*mut k::pv_spec_t> {
    if fixed.type_ != k::FPARAM_PVE {
        return None;
    }
    // SAFETY: the type says that this is a list of pieces, each a text with a variable behind it.
    let piece = unsafe { fixed.v.pve.as_ref()? };
    let alone = piece.text.len == 0 && piece.next.is_null() && !piece.spec.is_null();
    alone.then_some(piece.spec)
}
