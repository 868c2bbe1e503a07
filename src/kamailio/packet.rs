//! The source address of the packet that Kamailio processes.

use std::ffi::c_char;
use std::net::{IpAddr, Ipv4Addr};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::bindings as k;
use super::fast_path::{self, v4, Layout};
use super::pvar;
use crate::{address, error};

/// The text of the faked message, by which its copies are known: modules that run an event route often run it
/// with a copy.
static FAKED_TEXT: AtomicPtr<c_char> = AtomicPtr::new(ptr::dangling_mut());

/// Stores the address of the faked message's text. Call this in `mod_init`: all processes inherit the value.
pub fn learn_faked_message() {
    // SAFETY: the core makes the message at the first call, which may come this early, and keeps it.
    let text = unsafe { k::faked_msg_get_next().as_ref() }.map(|faked| faked.buf);
    if let Some(text) = text.filter(|text| !text.is_null()) {
        FAKED_TEXT.store(text, Ordering::Relaxed);
    }
}

/// The source address of the packet that is being processed; `None` if there is none: in timer routes and
/// other places where the core has only a message of its own making.
///
/// The address in such a message is not used, not even in the few routes for which another module puts a
/// real one there (`tcp:closed`, `websocket:closed`): the core leaves it there, and the next timer route
/// of the process would act on an address that has nothing to do with it.
///
/// # Safety
/// `msg` must be the message that Kamailio gave to the function, or NULL.
pub unsafe fn source(msg: *mut k::sip_msg_t) -> Option<IpAddr> {
    // SAFETY: all pointers come from the core and are valid during this call.
    unsafe {
        if msg.is_null()
            || k::faked_msg_match(msg) == 1
            || (*msg).buf == FAKED_TEXT.load(Ordering::Relaxed)
        {
            return from_ip_addr(event_source()?);
        }
        if fast_path::layout() != Layout::Right {
            return verified_source(msg);
        }
        fast_path::note_received(msg);
        from_ip_addr(&(*msg).rcv.src_ip)
    }
}

/// The source of the packet in an event route before parsing, if it is IPv4.
///
/// # Safety
/// As for [`source`].
#[inline(always)]
pub unsafe fn event_v4(msg: *mut k::sip_msg_t) -> Option<Ipv4Addr> {
    // SAFETY: as in `source`.
    unsafe {
        if k::faked_msg_match(msg) != 1 {
            return None;
        }
        v4(event_source()?)
    }
}

/// The source of the packet while the event routes run that see it before it is parsed.
#[inline]
unsafe fn event_source<'a>() -> Option<&'a k::ip_addr_t> {
    // SAFETY: what the core has set is valid during this call.
    unsafe {
        let raw = k::ksr_evrt_rcvnetinfo_get().as_ref()?;
        Some(&raw.rcv.as_ref()?.src_ip)
    }
}

/// The first message of a process: the address at the known place must be the one that `$si` shows. If it is
/// not, `$si` is used from then on.
#[cold]
unsafe fn verified_source(msg: *mut k::sip_msg_t) -> Option<IpAddr> {
    // SAFETY: as in `source`; the name is a C string.
    let (direct, has_variable) = unsafe {
        let pv = k::find_module_by_name(c"pv".as_ptr());
        (from_ip_addr(&(*msg).rcv.src_ip), !pv.is_null())
    };
    if !has_variable {
        // $si belongs to the module pv. Without it there is nothing to compare with, and asking for the
        // variable would log an error for each packet.
        fast_path::set_layout(Layout::Right);
        return direct;
    }
    // SAFETY: as in `source`.
    let shown = unsafe { from_variable(msg) };
    if fast_path::layout() == Layout::Unknown && shown.is_some() {
        let right = direct == shown;
        fast_path::set_layout(if right { Layout::Right } else { Layout::Wrong });
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
    // SAFETY: the specification is the core's own cached one.
    unsafe {
        let spec = k::pv_cache_get(&mut name);
        if spec.is_null() {
            return None;
        }
        let text = pvar::variable(msg, spec)?;
        address::parse_address(std::str::from_utf8(text).ok()?).ok()
    }
}

/// The address in its IPv4 form if it has one: a socket for both families shows IPv4 sources as mapped.
pub fn from_ip_addr(ip: &k::ip_addr_t) -> Option<IpAddr> {
    match (ip.af as i32, ip.len) {
        (libc::AF_INET, 4) => v4(ip).map(IpAddr::V4),
        // SAFETY: both members of the union are plain bytes.
        (libc::AF_INET6, 16) => Some(IpAddr::from(unsafe { ip.u.addr }).to_canonical()),
        _ => None,
    }
}
