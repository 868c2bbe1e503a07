//! Script functions, for the native script and for KEMI.

use std::ffi::{c_int, c_void};
use std::net::IpAddr;
use std::ptr;

use super::bindings as k;
use super::guard::guard;
use super::module::{module, Module};
use super::{fast_path, fixups, packet, pvar, text};
use crate::bans::{By, Order, Refusal, BAD_ARGUMENT, DONE, NOT_DONE};
use crate::warning;

/// `apiban_check()`. The fast path, fully inlined; if it does not decide, one jump to the rest.
pub unsafe extern "C" fn check_source(
    msg: *mut k::sip_msg_t,
    _: *mut c_void,
    _: *mut c_void,
) -> c_int {
    let decided = guard(None, "apiban_check", || {
        // SAFETY: the message that the core gave.
        fast_path::check_v4(unsafe { fast_path::received_v4(msg) }?)
    });
    match decided {
        Some(code) => code,
        // SAFETY: as above.
        None => unsafe { check_whole(msg) },
    }
}

/// `apiban_check()` beside the fast path.
#[inline(never)]
unsafe extern "C" fn check_whole(msg: *mut k::sip_msg_t) -> c_int {
    guard(NOT_DONE, "apiban_check", || {
        // SAFETY: the message that the core gave.
        unsafe {
            if let Some((_, ip)) = fast_path::received_v4(msg) {
                return with(Some(ip.into()), fast_path::check_whole);
            }
            // In the event routes before parsing there is a packet and no message.
            packet::event_v4(msg)
                .and_then(|ip| fast_path::check_v4((fast_path::open()?, ip)))
                .unwrap_or_else(|| with(source("apiban_check", msg), fast_path::check_whole))
        }
    })
}

/// `apiban_check(ip)`.
pub unsafe extern "C" fn check_address(
    msg: *mut k::sip_msg_t,
    ip: *mut c_void,
    _: *mut c_void,
) -> c_int {
    guard(NOT_DONE, "apiban_check", || {
        // SAFETY: the message and the fixed parameter that the core gave.
        with(unsafe { address("apiban_check", msg, ip) }, look_up)
    })
}

/// `apiban_block()`.
pub unsafe extern "C" fn block_source(
    msg: *mut k::sip_msg_t,
    _: *mut c_void,
    _: *mut c_void,
) -> c_int {
    guard(NOT_DONE, "apiban_block", || {
        // SAFETY: the message that the core gave.
        with(unsafe { source("apiban_block", msg) }, |module, ip| {
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
    guard(NOT_DONE, "apiban_block", || {
        // SAFETY: the message and the fixed parameter that the core gave.
        with(unsafe { address("apiban_block", msg, ip) }, |module, ip| {
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
    unsafe { block_because(msg, ip, ttl, ptr::null_mut()) }
}

/// `apiban_block(ip, ttl, reason)`. The core passes the third parameter to functions of three.
pub unsafe extern "C" fn block_because(
    msg: *mut k::sip_msg_t,
    ip: *mut c_void,
    ttl: *mut c_void,
    reason: *mut c_void,
) -> c_int {
    guard(NOT_DONE, "apiban_block", || {
        // SAFETY: the message and the fixed parameters that the core gave. Each text is copied or used
        // up before the next parameter is evaluated, which may reuse its buffer.
        unsafe {
            let ip = address("apiban_block", msg, ip);
            let ttl = accepted("apiban_block", pvar::parameter(msg, ttl), fixups::seconds);
            let reason = text_of(msg, reason).unwrap_or_default();
            with(ip.zip(ttl), |module, (ip, ttl)| {
                ban(module, ip, Some(ttl), &String::from_utf8_lossy(&reason))
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
    guard(NOT_DONE, "apiban_unblock", || {
        // SAFETY: the message that the core gave.
        with(unsafe { source("apiban_unblock", msg) }, lift)
    })
}

/// `apiban_unblock(ip)`.
pub unsafe extern "C" fn unblock_address(
    msg: *mut k::sip_msg_t,
    ip: *mut c_void,
    _: *mut c_void,
) -> c_int {
    guard(NOT_DONE, "apiban_unblock", || {
        // SAFETY: the message and the fixed parameter that the core gave.
        with(unsafe { address("apiban_unblock", msg, ip) }, lift)
    })
}

/// `KSR.apiban.check()`.
pub unsafe extern "C" fn kemi_check(msg: *mut k::sip_msg_t) -> c_int {
    // SAFETY: as the native function.
    unsafe { check_source(msg, ptr::null_mut(), ptr::null_mut()) }
}

/// `KSR.apiban.check_ip(ip)`.
pub unsafe extern "C" fn kemi_check_ip(_: *mut k::sip_msg_t, ip: *mut k::str_) -> c_int {
    guard(NOT_DONE, "apiban.check_ip", || {
        // SAFETY: the text that the interpreter gave, valid during the call.
        with(unsafe { given("check_ip", ip) }, look_up)
    })
}

/// `KSR.apiban.block()`.
pub unsafe extern "C" fn kemi_block(msg: *mut k::sip_msg_t) -> c_int {
    // SAFETY: as the native function.
    unsafe { block_source(msg, ptr::null_mut(), ptr::null_mut()) }
}

/// `KSR.apiban.block_ip(ip)`.
pub unsafe extern "C" fn kemi_block_ip(_: *mut k::sip_msg_t, ip: *mut k::str_) -> c_int {
    guard(NOT_DONE, "apiban.block_ip", || {
        // SAFETY: as above.
        with(unsafe { given("block_ip", ip) }, |module, ip| {
            ban(module, ip, None, "")
        })
    })
}

/// `KSR.apiban.block_ip_ttl(ip, ttl)`.
pub unsafe extern "C" fn kemi_block_ip_ttl(
    msg: *mut k::sip_msg_t,
    ip: *mut k::str_,
    ttl: c_int,
) -> c_int {
    // SAFETY: as below; no reason is given.
    unsafe { kemi_block_ip_reason(msg, ip, ttl, ptr::null_mut()) }
}

/// `KSR.apiban.block_ip_reason(ip, ttl, reason)`.
pub unsafe extern "C" fn kemi_block_ip_reason(
    _: *mut k::sip_msg_t,
    ip: *mut k::str_,
    ttl: c_int,
    reason: *mut k::str_,
) -> c_int {
    guard(NOT_DONE, "apiban.block_ip_reason", || {
        // SAFETY: texts that the interpreter gave, valid during the call.
        let (ip, reason) = unsafe {
            (
                given("block_ip_reason", ip),
                reason
                    .as_ref()
                    .map_or(&[][..], |reason| text::bytes(reason)),
            )
        };
        let ttl = accepted(
            "block_ip_reason",
            Some(ttl.to_string().as_bytes()),
            fixups::seconds,
        );
        with(ip.zip(ttl), |module, (ip, ttl)| {
            ban(module, ip, Some(ttl), &String::from_utf8_lossy(reason))
        })
    })
}

/// `KSR.apiban.unblock()`.
pub unsafe extern "C" fn kemi_unblock(msg: *mut k::sip_msg_t) -> c_int {
    // SAFETY: as the native function.
    unsafe { unblock_source(msg, ptr::null_mut(), ptr::null_mut()) }
}

/// `KSR.apiban.unblock_ip(ip)`.
pub unsafe extern "C" fn kemi_unblock_ip(_: *mut k::sip_msg_t, ip: *mut k::str_) -> c_int {
    guard(NOT_DONE, "apiban.unblock_ip", || {
        // SAFETY: as above.
        with(unsafe { given("unblock_ip", ip) }, lift)
    })
}

fn look_up(module: &Module, ip: IpAddr) -> c_int {
    let bans = module.bans();
    bans.check(ip).code(bans.policy.mode)
}

/// Bans for `ttl` seconds, or for `block_ttl` without one.
fn ban(module: &Module, ip: IpAddr, ttl: Option<u32>, reason: &str) -> c_int {
    let bans = module.bans();
    let ttl = ttl.unwrap_or(bans.policy.block_ttl);
    let placed = bans.block(Order {
        subnet: bans.source_subnet(ip),
        ttl,
        reason,
        by: By::Script,
    });
    placed.map_or_else(Refusal::code, |_| DONE)
}

fn lift(module: &Module, ip: IpAddr) -> c_int {
    if module.bans().unblock_source(ip) {
        DONE
    } else {
        NOT_DONE
    }
}

/// Acts with arguments that were accepted; `None` is answered by [`BAD_ARGUMENT`].
fn with<T>(arguments: Option<T>, act: impl FnOnce(&Module, T) -> c_int) -> c_int {
    match (module(), arguments) {
        (Some(module), Some(arguments)) => act(module, arguments),
        (Some(_), None) => BAD_ARGUMENT,
        (None, _) => NOT_DONE,
    }
}

/// The value of a parameter; `None`, with a warning, if it is not accepted.
fn accepted<T>(
    function: &str,
    text: Option<&[u8]>,
    read: fn(&[u8]) -> Result<T, String>,
) -> Option<T> {
    read(text.unwrap_or_default())
        .inspect_err(|wrong| warn(function, wrong))
        .ok()
}

/// At most once a minute in all processes together: the text may come with every packet.
#[cold]
fn warn(function: &str, wrong: &str) {
    if module().is_some_and(Module::may_warn) {
        warning!("{function}(): {wrong}; it returned {BAD_ARGUMENT} (told once a minute)");
    }
}

/// The source of the packet that the script works on; `None`, with a warning, if there is none, as in a timer's
/// route.
unsafe fn source(function: &str, msg: *mut k::sip_msg_t) -> Option<IpAddr> {
    // SAFETY: the caller's.
    let source = unsafe { packet::source(msg) };
    if source.is_none() {
        warn(
            function,
            "there is no packet here, so the address must be named",
        );
    }
    source
}

/// The address in a fixed parameter.
unsafe fn address(function: &str, msg: *mut k::sip_msg_t, fixed: *mut c_void) -> Option<IpAddr> {
    // SAFETY: the caller's; the text is used up before anything else is evaluated.
    let text = unsafe { pvar::parameter(msg, fixed) };
    accepted(function, text, fixups::address)
}

/// A copy of the text in a fixed parameter.
unsafe fn text_of(msg: *mut k::sip_msg_t, fixed: *mut c_void) -> Option<Vec<u8>> {
    // SAFETY: the caller's.
    unsafe { pvar::parameter(msg, fixed).map(<[u8]>::to_vec) }
}

/// The address in a text from a KEMI interpreter.
unsafe fn given(function: &str, ip: *mut k::str_) -> Option<IpAddr> {
    // SAFETY: NULL, or a text that is valid during the call.
    let text = unsafe { ip.as_ref().map(|ip| text::bytes(ip)) };
    accepted(function, text, fixups::address)
}
