//! The state of the fast path of `apiban_check()`, and the reasons why it stays valid.
//!
//! All of it belongs to one process, which has one thread that runs scripts. It is empty when the process
//! begins, also in a process forked from one that had filled it: only SIP workers fill it, and they fork none.
//!
//! - [`received_v4`]: the message that was found to be a received one is remembered by its place. The message
//!   of the core's own making is static, so it never has that place. Its copies are elsewhere too: on the stack of
//!   processes that receive no SIP (mqtt, erlang and nats make them). Kamailio mostly gets the same memory for each
//!   packet, so one comparison serves almost all of them.
//! - [`Layout`]: the source address stands where `tests/abi` says. The first message of a process is compared
//!   with what the core's own `$si` shows.
//! - [`check_v4`]: counts in the line of this process. A process that receives has its final index ([`open`]).

use std::ffi::c_int;
use std::net::{IpAddr, Ipv4Addr};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use super::bindings as k;
use super::module::{module, Module};
use crate::bans::check::{check_and_keep, check_fast};
use crate::config::Mode;
use crate::memory::Line;
use crate::shared::counters::ProcessCounters;
use crate::trust::Recent;

/// The last message that was found to be a received one, in the known layout; only once the fast path is open.
static RECEIVED: AtomicPtr<k::sip_msg_t> = AtomicPtr::new(ptr::dangling_mut());

/// A [`Layout`] as a number.
static LAYOUT: AtomicU8 = AtomicU8::new(0);

/// The counters of this process, once the fast path is open to it.
static COUNTERS: AtomicPtr<Line> = AtomicPtr::new(ptr::null_mut());

/// The trusted sources that this process met last.
static RECENT: Recent = Recent::new();

/// What this process knows of the place of the source address in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// No message was compared yet.
    Unknown,
    /// The source address is at the expected place.
    Right,
    /// It is elsewhere.
    Wrong,
}

/// The result of the comparison.
#[inline(always)]
pub fn layout() -> Layout {
    match LAYOUT.load(Ordering::Relaxed) {
        0 => Layout::Unknown,
        1 => Layout::Right,
        _ => Layout::Wrong,
    }
}

/// Notes the result of the comparison.
pub fn set_layout(layout: Layout) {
    LAYOUT.store(layout as u8, Ordering::Relaxed);
}

/// Proof that the fast path is open: [`COUNTERS`] is a line, and there is a module.
#[derive(Clone, Copy, Debug)]
pub struct Open(());

/// Opens the fast path for this process: in mode `enforce` only. Call only while handling a received packet: such a
/// process already has its final index and never forks, so its line of counters is its own.
pub fn open() -> Option<Open> {
    let module = module()?;
    if let (ProcessCounters::Own(line), Mode::Enforce) = (module.counters(), module.config.mode) {
        COUNTERS.store(ptr::from_ref(line).cast_mut(), Ordering::Relaxed);
        return Some(Open(()));
    }
    None
}

/// Notes that `msg` was found to be a received message in the known layout.
pub fn note_received(msg: *mut k::sip_msg_t) {
    if open().is_some() {
        RECEIVED.store(msg, Ordering::Relaxed);
    }
}

/// The IPv4 source of `msg`, if `msg` is the message last noted.
///
/// # Safety
/// `msg` must be the message that Kamailio gave to the function, or NULL.
#[inline(always)]
pub unsafe fn received_v4(msg: *mut k::sip_msg_t) -> Option<(Open, Ipv4Addr)> {
    if msg != RECEIVED.load(Ordering::Relaxed) {
        return None;
    }
    // SAFETY: not NULL and in the known layout, since it is the message that was noted.
    let ip = v4(unsafe { &(*msg).rcv.src_ip })?;
    Some((Open(()), ip))
}

/// The address of `ip` if it is an IPv4 address.
#[inline(always)]
pub fn v4(ip: &k::ip_addr_t) -> Option<Ipv4Addr> {
    // SAFETY: both members of the union are plain bytes.
    let bytes = unsafe { ip.u.addr.first_chunk::<4>()? };
    (ip.af as i32 == libc::AF_INET).then(|| Ipv4Addr::from(*bytes))
}

/// The return code of `apiban_check()` for this source; `None`, with nothing counted, if that takes a search.
#[inline(always)]
pub fn check_v4((_, ip): (Open, Ipv4Addr)) -> Option<c_int> {
    // SAFETY: the fast path is open, so there is a module.
    let module = unsafe { module().unwrap_unchecked() };
    // Read at the end, which keeps a register free until then.
    let counters = || {
        // SAFETY: the fast path is open, so this is a line, which lives as long as the process.
        ProcessCounters::Own(unsafe { &*COUNTERS.load(Ordering::Relaxed) })
    };
    check_fast(&module.shared, counters, &RECENT, ip).map(|verdict| verdict.code(Mode::Enforce))
}

/// The same by a search, which remembers a trusted source for [`check_v4`].
pub fn check_whole(module: &Module, ip: IpAddr) -> c_int {
    let verdict = match ip {
        IpAddr::V4(v4) => check_and_keep(&module.shared, module.counters(), &RECENT, v4),
        v6 => module.bans().check(v6),
    };
    verdict.code(module.config.mode)
}
