//! The parameters of script functions: constant ones are checked when Kamailio starts, and a text that is not
//! accepted gets a message.

use std::ffi::{c_int, c_void};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::bindings as k;
use super::guard::guard;
use super::pvar;
use crate::address::parse_address;
use crate::bans::MAX_TTL;
use crate::error;
use crate::quote::foreign;

/// Longest piece of a bad value in a message, in characters.
const SHOWN: usize = 64;

/// True until the script is complete. Later the core fixes the value of an expression at each call, in the
/// process that runs it: then the call itself answers for the value.
static STARTING: AtomicBool = AtomicBool::new(true);

/// The script is complete: from now on values are not constant.
pub fn script_is_complete() {
    STARTING.store(false, Ordering::Relaxed);
}

/// The fixup of `apiban_check()`; below zero ends the start of Kamailio.
pub unsafe extern "C" fn fix_check(value: *mut *mut c_void, number: c_int) -> c_int {
    // SAFETY: the caller's.
    guard(-1, "a fixup", || unsafe {
        fix("apiban_check", value, number)
    })
}

/// The fixup of `apiban_block()`.
pub unsafe extern "C" fn fix_block(value: *mut *mut c_void, number: c_int) -> c_int {
    // SAFETY: the caller's.
    guard(-1, "a fixup", || unsafe {
        fix("apiban_block", value, number)
    })
}

/// The fixup of `apiban_unblock()`.
pub unsafe extern "C" fn fix_unblock(value: *mut *mut c_void, number: c_int) -> c_int {
    // SAFETY: the caller's.
    guard(-1, "a fixup", || unsafe {
        fix("apiban_unblock", value, number)
    })
}

/// # Safety
/// Only for a call by the core: `value` is the parameter with this `number`, counted from 1.
unsafe fn fix(function: &str, value: *mut *mut c_void, number: c_int) -> c_int {
    // SAFETY: the caller's. What was fixed lives until the core frees it.
    let constant = unsafe {
        let code = k::fixup_spve_all(value, number);
        if code != 0 || !STARTING.load(Ordering::Relaxed) {
            return code;
        }
        pvar::constant(*value)
    };
    let wrong = match (number, constant) {
        (1, Some(text)) => address(text).err(),
        (2, Some(text)) => seconds(text).err(),
        _ => None,
    };
    match wrong {
        None => 0,
        Some(wrong) => {
            error!("{function}(): {wrong}");
            -1
        }
    }
}

/// The address in a parameter `ip`.
///
/// # Errors
/// What is wrong with it, and what is accepted.
pub fn address(bytes: &[u8]) -> Result<IpAddr, String> {
    let text = String::from_utf8_lossy(bytes);
    parse_address(text.trim()).map_err(|_| {
        format!(
            "ip \"{}\" is not an IP address; accepted: an address, or a pseudo-variable such as \"$si\"",
            foreign(&text, SHOWN)
        )
    })
}

/// The time in a parameter `ttl`.
///
/// # Errors
/// What is wrong with it, and what is accepted.
pub fn seconds(bytes: &[u8]) -> Result<u32, String> {
    let text = String::from_utf8_lossy(bytes);
    let seconds = text.trim().parse().ok();
    seconds
        .filter(|seconds| (1..=MAX_TTL).contains(seconds))
        .ok_or_else(|| {
            format!(
                "ttl \"{}\" is wrong; accepted: a number of seconds from 1 to {MAX_TTL}",
                foreign(&text, SHOWN)
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_ban() {
        assert_eq!(seconds(b" 60 "), Ok(60));
        assert_eq!(seconds(b"1"), Ok(1));
        assert_eq!(seconds(MAX_TTL.to_string().as_bytes()), Ok(MAX_TTL));
        for bad in [
            "",
            "0",
            "-60",
            "1h",
            "6e1",
            "1.5",
            "315360001",
            "99999999999999999999",
        ] {
            let wrong = seconds(bad.as_bytes()).unwrap_err();
            assert!(
                wrong.starts_with(&format!("ttl \"{bad}\" is wrong")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(
            address(b" [2001:db8::1] ").unwrap().to_string(),
            "2001:db8::1"
        );
        for bad in ["", "si", "192.0.2.0/24", "carrier.example"] {
            let wrong = address(bad.as_bytes()).unwrap_err();
            assert!(
                wrong.starts_with(&format!("ip \"{bad}\" is not")),
                "{wrong}"
            );
        }
    }
}
