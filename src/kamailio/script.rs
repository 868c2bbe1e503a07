//! Script functions, for the native script and for KEMI.

use std::ffi::{c_char, c_int, c_void};
use std::net::IpAddr;

use super::bindings as k;
use super::guard::guard;
use super::lifecycle::{module, Module};
use super::{packet, text};
use crate::address;
use crate::check::check;

/// What a function answers where an address is needed and there is none.
const NOT_AN_ADDRESS: c_int = -3;
/// What a check answers on internal trouble: not banned.
const NOT_BANNED: c_int = -1;

/// `apiban_check()`.
pub unsafe extern "C" fn check_source(
    msg: *mut k::sip_msg_t,
    _: *mut c_void,
    _: *mut c_void,
) -> c_int {
    guard(NOT_BANNED, "apiban_check", || {
        // SAFETY: the message that the core gave.
        with(unsafe { packet::source(msg) }, look_up)
    })
}

/// `apiban_check(ip)`.
pub unsafe extern "C" fn check_address(
    msg: *mut k::sip_msg_t,
    ip: *mut c_void,
    _: *mut c_void,
) -> c_int {
    guard(NOT_BANNED, "apiban_check", || {
        // SAFETY: the message and the fixed parameter that the core gave.
        with(unsafe { parameter(msg, ip) }, look_up)
    })
}

/// `KSR.apiban.check()`.
pub unsafe extern "C" fn kemi_check(msg: *mut k::sip_msg_t) -> c_int {
    // SAFETY: as the native function.
    unsafe { check_source(msg, std::ptr::null_mut(), std::ptr::null_mut()) }
}

/// `KSR.apiban.check_ip(ip)`.
pub unsafe extern "C" fn kemi_check_ip(_: *mut k::sip_msg_t, ip: *mut k::str_) -> c_int {
    guard(NOT_BANNED, "apiban.check_ip", || {
        // SAFETY: the text that the interpreter gave, valid during the call.
        with(
            unsafe { ip.as_ref().and_then(|ip| parse(text::bytes(ip))) },
            look_up,
        )
    })
}

fn look_up(module: &Module, ip: IpAddr) -> c_int {
    check(&module.shared, module.lane(), ip).code(module.config.mode)
}

#[inline]
fn with(ip: Option<IpAddr>, act: impl FnOnce(&Module, IpAddr) -> c_int) -> c_int {
    match (module(), ip) {
        (Some(module), Some(ip)) => act(module, ip),
        (Some(_), None) => NOT_AN_ADDRESS,
        (None, _) => NOT_BANNED,
    }
}

/// The address in a fixed parameter.
unsafe fn parameter(msg: *mut k::sip_msg_t, fixed: *mut c_void) -> Option<IpAddr> {
    let mut value = k::str_ {
        s: std::ptr::null_mut::<c_char>(),
        len: 0,
    };
    // SAFETY: `fixed` is what our fixup made; the text is used before anything else is evaluated.
    unsafe {
        if fixed.is_null() || k::get_str_fparam(&mut value, msg, fixed.cast()) != 0 {
            return None;
        }
        parse(text::bytes(&value))
    }
}

fn parse(bytes: &[u8]) -> Option<IpAddr> {
    address::parse_address(std::str::from_utf8(bytes).ok()?.trim()).ok()
}
