//! The addresses of this Kamailio itself.

use std::collections::BTreeSet;
use std::ffi::c_int;
use std::net::IpAddr;

use super::bindings as k;
use super::{sockets, text};

/// The addresses that Kamailio listens on, on an interface or not; those that it advertises; those of the
/// interfaces that it knows as aliases; and every interface address if it listens on all of them. Changes
/// when an interface does.
pub fn addresses() -> Vec<IpAddr> {
    let mut own: BTreeSet<IpAddr> = sockets::advertised().into_iter().collect();
    own.extend(sockets::listening().iter().map(|socket| socket.ip));
    let everywhere = own.iter().any(IpAddr::is_unspecified);
    own.retain(|ip| !ip.is_unspecified());
    own.extend(
        interface_addresses()
            .into_iter()
            .filter(|ip| everywhere || is_own(*ip)),
    );
    own.into_iter().collect()
}

fn interface_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect()
}

/// True if Kamailio listens on this address, whatever port, or knows it as an alias.
pub fn is_own(ip: IpAddr) -> bool {
    let host = text::to_c(&ip.to_string());
    let mut host = k::str_ {
        s: host.as_ptr().cast_mut(),
        len: host.count_bytes() as c_int,
    };
    // SAFETY: the core only reads the text, which lives until the call returns.
    unsafe { k::check_self(&mut host, 0, 0) == 1 }
}
