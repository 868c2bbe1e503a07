//! The sockets that Kamailio listens on.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

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

/// The sockets, one row per address. With `descriptors` each open socket comes with a descriptor of our own:
/// those of UDP are valid in every process, those of TCP and TLS only in the main process, so that a child
/// which needs them must get this list from before its fork.
pub fn listening(descriptors: bool) -> Vec<ListeningSocket> {
    let mut found = Vec::new();
    for_each(|transport, socket| {
        let mut rows = rows(transport, socket);
        if let (true, true, Some(first)) = (descriptors, socket.socket >= 0, rows.first_mut()) {
            // SAFETY: the core keeps the socket open during this call.
            let fd = unsafe { BorrowedFd::borrow_raw(socket.socket) };
            first.fd = fd.try_clone_to_owned().ok();
        }
        found.append(&mut rows);
    });
    found
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
