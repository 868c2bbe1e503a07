//! Script functions, for the native script and for KEMI.

use std::ffi::{c_char, c_int, c_void};
use std::net::{IpAddr, Ipv4Addr};

use super::bindings as k;
use super::guard::guard;
use super::lifecycle::{module, Module};
use super::{packet, text};
use crate::address::parse_address;
use crate::ban::{source_subnet, unblock_source as unblock_source_of, Order, Refusal, MAX_TTL};
use crate::check::{check, check_v4, glance};
use crate::table::Insert;

/// What a function answers where an address is needed and there is none.
const NOT_AN_ADDRESS: c_int = -3;
/// What a check answers on internal trouble: not banned.
const NOT_BANNED: c_int = -1;
/// What the others answer on internal trouble: nothing was done.
const INTERNAL: c_int = -1;

/// `apiban_check()`.
pub unsafe extern "C" fn check_source(
    msg: *mut k::sip_msg_t,
    _: *mut c_void,
    _: *mut c_void,
) -> c_int {
    guard(NOT_BANNED, "apiban_check", || {
        // SAFETY: the message that the core gave.
        unsafe {
            match packet::received_v4(msg) {
                Some(v4) => look_up_v4(v4),
                None => check_unknown(msg),
            }
        }
    })
}

/// `apiban_check()` of a message that was not seen before, or of none: in the event routes before parsing.
#[inline(never)]
unsafe fn check_unknown(msg: *mut k::sip_msg_t) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        match packet::event_v4(msg) {
            Some(v4) => look_up_v4(v4),
            None => with(packet::source(msg), look_up),
        }
    }
}

/// `apiban_check(ip)`.
pub unsafe extern "C" fn check_address(
    msg: *mut k::sip_msg_t,
    ip: *mut c_void,
    _: *mut c_void,
) -> c_int {
    guard(NOT_BANNED, "apiban_check", || {
        // SAFETY: the message and the fixed parameter that the core gave.
        with(unsafe { address(msg, ip) }, look_up)
    })
}

/// `apiban_block()`.
pub unsafe extern "C" fn block_source(
    msg: *mut k::sip_msg_t,
    _: *mut c_void,
    _: *mut c_void,
) -> c_int {
    guard(INTERNAL, "apiban_block", || {
        // SAFETY: the message that the core gave.
        with(unsafe { packet::source(msg) }, |module, ip| {
            ban(module, ip, None, "")
        })
    })
}

/// `apiban_block(ip)`.
pub unsafe extern "C" fn block_address(
    msg: *mut k::sip_msg_t,
    ip: *mut c_void,
    _: *mut c_void,
) -> c_int {
    guard(INTERNAL, "apiban_block", || {
        // SAFETY: the message and the fixed parameter that the core gave.
        with(unsafe { address(msg, ip) }, |module, ip| {
            ban(module, ip, None, "")
        })
    })
}

/// `apiban_block(ip, ttl)`.
pub unsafe extern "C" fn block_for(
    msg: *mut k::sip_msg_t,
    ip: *mut c_void,
    ttl: *mut c_void,
) -> c_int {
    // SAFETY: as below; there is no reason to read.
    unsafe { block_because(msg, ip, ttl, std::ptr::null_mut()) }
}

/// `apiban_block(ip, ttl, reason)`. The core passes the third parameter to functions of three.
pub unsafe extern "C" fn block_because(
    msg: *mut k::sip_msg_t,
    ip: *mut c_void,
    ttl: *mut c_void,
    reason: *mut c_void,
) -> c_int {
    guard(INTERNAL, "apiban_block", || {
        // SAFETY: the message and the fixed parameters that the core gave. Each text is copied or used
        // up before the next parameter is evaluated, which may reuse its buffer.
        unsafe {
            let (ip, ttl) = (address(msg, ip), text_of(msg, ttl));
            let seconds =
                ttl.and_then(|ttl| String::from_utf8_lossy(&ttl).trim().parse::<i64>().ok());
            let reason = text_of(msg, reason).unwrap_or_default();
            with(ip, |module, ip| {
                ban(
                    module,
                    ip,
                    Some(seconds.unwrap_or(0)),
                    &String::from_utf8_lossy(&reason),
                )
            })
        }
    })
}

/// `apiban_unblock()`.
pub unsafe extern "C" fn unblock_source(
    msg: *mut k::sip_msg_t,
    _: *mut c_void,
    _: *mut c_void,
) -> c_int {
    guard(INTERNAL, "apiban_unblock", || {
        // SAFETY: the message that the core gave.
        with(unsafe { packet::source(msg) }, lift)
    })
}

/// `apiban_unblock(ip)`.
pub unsafe extern "C" fn unblock_address(
    msg: *mut k::sip_msg_t,
    ip: *mut c_void,
    _: *mut c_void,
) -> c_int {
    guard(INTERNAL, "apiban_unblock", || {
        // SAFETY: the message and the fixed parameter that the core gave.
        with(unsafe { address(msg, ip) }, lift)
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
        with(unsafe { given(ip) }, look_up)
    })
}

/// `KSR.apiban.block()`.
pub unsafe extern "C" fn kemi_block(msg: *mut k::sip_msg_t) -> c_int {
    // SAFETY: as the native function.
    unsafe { block_source(msg, std::ptr::null_mut(), std::ptr::null_mut()) }
}

/// `KSR.apiban.block_ip(ip)`.
pub unsafe extern "C" fn kemi_block_ip(_: *mut k::sip_msg_t, ip: *mut k::str_) -> c_int {
    guard(INTERNAL, "apiban.block_ip", || {
        // SAFETY: as above.
        with(unsafe { given(ip) }, |module, ip| ban(module, ip, None, ""))
    })
}

/// `KSR.apiban.block_ip_ttl(ip, ttl)`.
pub unsafe extern "C" fn kemi_block_ip_ttl(
    msg: *mut k::sip_msg_t,
    ip: *mut k::str_,
    ttl: c_int,
) -> c_int {
    // SAFETY: as below; no reason is given.
    unsafe { kemi_block_ip_reason(msg, ip, ttl, std::ptr::null_mut()) }
}

/// `KSR.apiban.block_ip_reason(ip, ttl, reason)`.
pub unsafe extern "C" fn kemi_block_ip_reason(
    _: *mut k::sip_msg_t,
    ip: *mut k::str_,
    ttl: c_int,
    reason: *mut k::str_,
) -> c_int {
    guard(INTERNAL, "apiban.block_ip_reason", || {
        // SAFETY: texts that the interpreter gave, valid during the call.
        let (ip, reason) = unsafe {
            (
                given(ip),
                reason
                    .as_ref()
                    .map_or(&[][..], |reason| text::bytes(reason)),
            )
        };
        with(ip, |module, ip| {
            ban(
                module,
                ip,
                Some(i64::from(ttl)),
                &String::from_utf8_lossy(reason),
            )
        })
    })
}

/// `KSR.apiban.unblock()`.
pub unsafe extern "C" fn kemi_unblock(msg: *mut k::sip_msg_t) -> c_int {
    // SAFETY: as the native function.
    unsafe { unblock_source(msg, std::ptr::null_mut(), std::ptr::null_mut()) }
}

/// `KSR.apiban.unblock_ip(ip)`.
pub unsafe extern "C" fn kemi_unblock_ip(_: *mut k::sip_msg_t, ip: *mut k::str_) -> c_int {
    guard(INTERNAL, "apiban.unblock_ip", || {
        // SAFETY: as above.
        with(unsafe { given(ip) }, lift)
    })
}

fn look_up(module: &Module, ip: IpAddr) -> c_int {
    check(&module.shared, module.lane(), ip).code(module.config.mode)
}

/// The hot path.
#[inline(always)]
fn look_up_v4(ip: Ipv4Addr) -> c_int {
    let Some(module) = module() else {
        return NOT_BANNED;
    };
    glance(&module.shared, || module.lane(), ip)
        .unwrap_or_else(|| check_v4(&module.shared, module.lane(), ip))
        .code(module.config.mode)
}

fn ban(module: &Module, ip: IpAddr, ttl: Option<i64>, reason: &str) -> c_int {
    let ttl = ttl.unwrap_or(i64::from(module.config.block_ttl));
    if !(1..=i64::from(MAX_TTL)).contains(&ttl) {
        return NOT_AN_ADDRESS;
    }
    let subnet = source_subnet(&module.shared, &module.config, ip);
    let order = Order {
        subnet,
        ttl: ttl as u32,
        reason,
        budgeted: true,
    };
    let placed = crate::ban::block(&module.shared, &module.config, module.lane(), order);
    // A ban that holds already is no news to the updater.
    module.wake_for_notes(matches!(placed, Ok(Insert::New | Insert::Extended)));
    match placed {
        Ok(_) => 1,
        Err(Refusal::Trusted(_)) => -1,
        Err(Refusal::Unbannable(_)) => NOT_AN_ADDRESS,
        Err(Refusal::Full) => -4,
        Err(Refusal::OverBudget) => -5,
    }
}

fn lift(module: &Module, ip: IpAddr) -> c_int {
    let lifted = unblock_source_of(&module.shared, &module.config, ip);
    module.wake_for_notes(lifted);
    if lifted {
        1
    } else {
        -1
    }
}

fn with(ip: Option<IpAddr>, act: impl FnOnce(&Module, IpAddr) -> c_int) -> c_int {
    match (module(), ip) {
        (Some(module), Some(ip)) => act(module, ip),
        (Some(_), None) => NOT_AN_ADDRESS,
        (None, _) => NOT_BANNED,
    }
}

/// The address in a fixed parameter.
unsafe fn address(msg: *mut k::sip_msg_t, fixed: *mut c_void) -> Option<IpAddr> {
    // SAFETY: the caller's; the text is used up before anything else is evaluated.
    unsafe { value_of(msg, fixed).and_then(parse) }
}

/// A copy of the text in a fixed parameter.
unsafe fn text_of(msg: *mut k::sip_msg_t, fixed: *mut c_void) -> Option<Vec<u8>> {
    // SAFETY: the caller's.
    unsafe { value_of(msg, fixed).map(<[u8]>::to_vec) }
}

/// The text in a parameter that `fixup_spve_all` fixed, valid until the next one is evaluated.
unsafe fn value_of<'a>(msg: *mut k::sip_msg_t, fixed: *mut c_void) -> Option<&'a [u8]> {
    let mut value = k::str_ {
        s: std::ptr::null_mut::<c_char>(),
        len: 0,
    };
    // SAFETY: `fixed` is what our fixup made of the parameter, `msg` the message of this call.
    unsafe {
        if fixed.is_null() || k::get_str_fparam(&mut value, msg, fixed.cast()) != 0 {
            return None;
        }
        Some(text::bytes(&value))
    }
}

/// The address in a text from a KEMI interpreter.
unsafe fn given(ip: *mut k::str_) -> Option<IpAddr> {
    // SAFETY: NULL, or a text that is valid during the call.
    unsafe { ip.as_ref().and_then(|ip| parse(text::bytes(ip))) }
}

fn parse(bytes: &[u8]) -> Option<IpAddr> {
    parse_address(std::str::from_utf8(bytes).ok()?.trim()).ok()
}
