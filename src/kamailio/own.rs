//! The addresses of this Kamailio itself.

use std::ffi::c_int;
use std::net::IpAddr;

use super::bindings as k;
use super::text;

/// The addresses of this host that Kamailio listens on.
pub fn addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address
                .as_sockaddr_in()
                .map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| {
                address
                    .as_sockaddr_in6()
                    .map(|address| IpAddr::V6(address.ip()))
            })
        })
        .filter(|ip| is_own(*ip))
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
