//! The sockets that Kamailio listens on.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::bindings as k;
use super::packet::from_ip_addr;
use super::text;
use crate::address::parse_address;
use crate::sys::listening::{ListeningSocket, Transport};

const TRANSPORTS: [(Transport, i32); 4] = [
    (Transport::Udp, k::PROTO_UDP),
    (Transport::Tcp, k::PROTO_TCP),
    (Transport::Tls, k::PROTO_TLS),
    (Transport::Sctp, k::PROTO_SCTP),
];

/// Descriptors of our own of the sockets of UDP, TCP and TLS: see [`take_descriptors`].
static DESCRIPTORS: Mutex<Vec<ListeningSocket>> = Mutex::new(Vec::new());

/// The sockets, one row per address, without descriptors.
pub fn listening() -> Vec<ListeningSocket> {
    let mut found = Vec::new();
    for_each(|transport, socket| found.append(&mut rows(transport, socket)));
    found
}

/// Makes descriptors of our own of every open socket of UDP, TCP and TLS, for the processes forked from here on.
/// The core closes those of TCP and TLS in the children that do not accept connections, so this must happen in
/// the main process, before the forks. A process that has no use for them calls [`close_descriptors`].
pub fn take_descriptors() {
    let mut taken = Vec::new();
    for_each(|transport, socket| {
        let ip = from_ip_addr(&socket.address);
        let (true, Some(ip)) = (transport != Transport::Sctp && socket.socket >= 0, ip) else {
            return;
        };
        // SAFETY: the core keeps the socket open during this call.
        let fd = unsafe { BorrowedFd::borrow_raw(socket.socket) };
        taken.push(ListeningSocket {
            transport,
            ip,
            port: socket.port_no,
            fd: fd.try_clone_to_owned().ok(),
        });
    });
    *descriptors() = taken;
}

/// Closes them in this process.
pub fn close_descriptors() {
    descriptors().clear();
}

/// Does something with them, in a process that has not closed them.
pub fn with_descriptors<R>(act: impl FnOnce(&[ListeningSocket]) -> R) -> R {
    act(&descriptors())
}

fn descriptors() -> MutexGuard<'static, Vec<ListeningSocket>> {
    // A panic while the lock was held left the list whole.
    DESCRIPTORS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The addresses that Kamailio gives as its own in SIP instead of those that it listens on. A name is left
/// out.
pub fn advertised() -> Vec<IpAddr> {
    let mut found = Vec::new();
    // SAFETY: set while the configuration is read, constant afterwards.
    let global = unsafe { (&raw const k::default_global_address).read() };
    // SAFETY: as above.
    found.extend(unsafe { address_in(&global) });
    // SAFETY: a text of the core, valid as long as the list.
    for_each(|_, socket| found.extend(unsafe { address_in(&socket.useinfo_name) }));
    found
}

/// # Safety
/// `value` must be a valid text of the core.
unsafe fn address_in(value: &k::str_) -> Option<IpAddr> {
    // SAFETY: the caller's.
    let bytes = unsafe { text::bytes(value) };
    parse_address(std::str::from_utf8(bytes).ok()?).ok()
}

fn for_each(mut act: impl FnMut(Transport, &k::socket_info)) {
    for (transport, proto) in TRANSPORTS {
        // SAFETY: the lists are complete since the configuration was read, and never change afterwards.
        unsafe {
            let Some(list) = k::get_sock_info_list(proto as u16).as_ref() else {
                continue;
            };
            let mut next = list.as_ref();
            while let Some(socket) = next {
                act(transport, socket);
                next = socket.next.as_ref();
            }
        }
    }
}

/// A row for the address of the socket, and for each further one, which SCTP can have.
fn rows(transport: Transport, socket: &k::socket_info) -> Vec<ListeningSocket> {
    let row = |flags: i32, address: &k::ip_addr_t| {
        let is_source = flags & k::SI_IS_MCAST == 0;
        let ip = from_ip_addr(address).filter(|_| is_source)?;
        Some(ListeningSocket {
            transport,
            ip,
            port: socket.port_no,
            fd: None,
        })
    };
    let mut rows: Vec<_> = row(socket.flags, &socket.address).into_iter().collect();
    // SAFETY: as in `for_each`.
    unsafe {
        let mut next = socket.addr_info_lst.as_ref();
        while let Some(further) = next {
            rows.extend(row(further.flags, &further.address));
            next = further.next.as_ref();
        }
    }
    rows
}
