//! Where the packet in hand came from.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU8, Ordering};

use super::bindings as k;
use super::text;
use crate::{address, error};

/// What this process knows of reading the source address from the message.
static TRUSTED_LAYOUT: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const RIGHT: u8 = 1;
const WRONG: u8 = 2;

/// The source address of the packet that is being processed; `None` where there is none: in timer
/// routes and other places where the core has only a message of its own making.
///
/// # Safety
/// `msg` must be the message that Kamailio gave to the function, or NULL.
pub unsafe fn source(msg: *mut k::sip_msg_t) -> Option<IpAddr> {
    // SAFETY: the caller's.
    unsafe { with_source(msg, IpAddr::V4, |ip| ip) }
}

/// What `v4` or `any` makes of the source address, as [`source`] has it. For the hot path: an IPv4 address
/// never leaves the registers.
///
/// # Safety
/// As for [`source`].
#[inline(always)]
pub unsafe fn with_source<T>(
    msg: *mut k::sip_msg_t,
    v4: impl FnOnce(Ipv4Addr) -> T,
    any: impl FnOnce(IpAddr) -> T,
) -> Option<T> {
    // SAFETY: all pointers come from the core and are valid during this call.
    let ip = unsafe {
        if msg.is_null() || k::faked_msg_match(msg) == 1 {
            // Set only while the event routes run that see a packet before it is parsed.
            &k::ksr_evrt_rcvnetinfo_get().as_ref()?.rcv.as_ref()?.src_ip
        } else if TRUSTED_LAYOUT.load(Ordering::Relaxed) == RIGHT {
            &(*msg).rcv.src_ip
        } else {
            return verified_source(msg).map(any);
        }
    };
    if ip.af as i32 == libc::AF_INET {
        // SAFETY: both members of the union are plain bytes.
        let bytes = unsafe { &ip.u.addr };
        return Some(v4(Ipv4Addr::from(*bytes.first_chunk::<4>()?)));
    }
    from_ip_addr(ip).map(any)
}

/// The first message of a process: what stands at the known place must be what the core's own
/// pseudo-variable says. Where it is not, the variable is used from then on.
#[cold]
unsafe fn verified_source(msg: *mut k::sip_msg_t) -> Option<IpAddr> {
    // SAFETY: as in `source`.
    let (direct, shown) = unsafe { (from_ip_addr(&(*msg).rcv.src_ip), from_variable(msg)) };
    if TRUSTED_LAYOUT.load(Ordering::Relaxed) == UNKNOWN && shown.is_some() {
        let right = direct == shown;
        TRUSTED_LAYOUT.store(if right { RIGHT } else { WRONG }, Ordering::Relaxed);
        if !right {
            error!("the source address of the first message is not where this Kamailio keeps it: using $si, which is slower");
        }
    }
    shown
}

/// The address as `$si` gives it.
unsafe fn from_variable(msg: *mut k::sip_msg_t) -> Option<IpAddr> {
    let mut name = k::str_ {
        s: c"$si".as_ptr().cast_mut(),
        len: 3,
    };
    // SAFETY: the specification is the core's own cached one; the value has room for every release, and
    // its text stays valid until the next evaluation.
    unsafe {
        let spec = k::pv_cache_get(&mut name);
        if spec.is_null() {
            return None;
        }
        let mut value: k::pv_value_t = std::mem::zeroed();
        if k::pv_get_spec_value(msg, spec, &mut value) != 0 {
            return None;
        }
        address::parse_address(std::str::from_utf8(text::bytes(&value.rs)).ok()?).ok()
    }
}

fn from_ip_addr(ip: &k::ip_addr_t) -> Option<IpAddr> {
    // SAFETY: both members of the union are plain bytes.
    let bytes = unsafe { &ip.u.addr };
    match (ip.af as i32, ip.len) {
        (libc::AF_INET, 4) => Some(IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])),
        (libc::AF_INET6, 16) => Some(IpAddr::from(*bytes)),
        _ => None,
    }
}
