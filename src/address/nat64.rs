//! Addresses under which IPv4 hosts appear behind a NAT64 translator: those in 64:ff9b::/96 (RFC 6052) and
//! 64:ff9b:1::/48 (RFC 8215).
//!
//! In the second network the operator chooses the length of the translator's prefix, and the address does not show it.
//! So an address there may stand for several IPv4 hosts: one for each length of RFC 6052 section 2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Subnet;

/// 64:ff9b::/96.
const WELL_KNOWN: u128 = 0x0064_ff9b << 96;
/// 64:ff9b:1::/48.
const LOCAL: u128 = WELL_KNOWN | 1 << 80;
/// Some address of a translator, for code that groups addresses by their first 32 bits: both networks have the same.
pub const REGION: Ipv6Addr = Ipv6Addr::from_bits(WELL_KNOWN);

/// True for the address of an IPv4 host behind a translator.
pub fn is_translated(ip: Ipv6Addr) -> bool {
    let bits = ip.to_bits();
    bits >> 32 == WELL_KNOWN >> 32 || bits >> 80 == LOCAL >> 80
}

/// The IPv4 hosts for which `ip` may stand; none for most addresses.
pub fn hosts(ip: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let last = is_translated(ip).then(|| Ipv4Addr::from_bits(ip.to_bits() as u32));
    last.into_iter()
        .chain([48, 56, 64].into_iter().filter_map(move |length| {
            let is_local = ip.to_bits() >> 80 == LOCAL >> 80;
            is_local.then(|| embedded(ip, length)).flatten()
        }))
}

/// The IPv4 address behind a prefix of `length` bits, 48 to 64; `None` if a bit is set that RFC 6052 wants zero.
fn embedded(ip: Ipv6Addr, length: u32) -> Option<Ipv4Addr> {
    let bits = ip.to_bits();
    // Bits 64 to 71 belong to no address.
    let reserved = bits >> 56 & 0xff;
    let joined = bits >> 64 << 56 | bits & ((1 << 56) - 1);
    let after = 120 - length - 32;
    let suffix = joined & ((1 << after) - 1);
    (reserved == 0 && suffix == 0).then(|| Ipv4Addr::from_bits((joined >> after) as u32))
}

/// The IPv4 hosts and networks of which `subnet` may hold hosts; none for most, and none for a prefix that is too wide
/// to be banned.
pub fn networks(subnet: Subnet) -> impl Iterator<Item = Subnet> {
    let (ip, length) = match subnet.address() {
        IpAddr::V6(ip) => (ip, subnet.prefix_len()),
        IpAddr::V4(_) => (Ipv6Addr::UNSPECIFIED, 128),
    };
    let single = subnet.is_host().then(|| hosts(ip)).into_iter().flatten();
    let inside = is_translated(ip) && (96..128).contains(&length);
    let holds_some = |network: u128, bits: u8| {
        let common = u32::from(bits.min(length));
        common == 0 || ip.to_bits() >> (128 - common) == network >> (128 - common)
    };
    let wide = length < 96
        && !subnet.is_too_wide()
        && (holds_some(WELL_KNOWN, 96) || holds_some(LOCAL, 48));
    let last = Ipv4Addr::from_bits(ip.to_bits() as u32);
    let part = match (inside, wide) {
        (true, _) => Subnet::new(last.into(), length - 96),
        (_, true) => Subnet::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        _ => None,
    };
    single.map(|ip| Subnet::host(ip.into())).chain(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(text: &str) -> Vec<String> {
        let subnet = text.parse().unwrap();
        networks(subnet).map(|net| net.to_string()).collect()
    }

    /// The examples of RFC 6052 section 2.4 with the prefixes of RFC 8215.
    #[test]
    fn every_form_of_an_address_is_understood() {
        let host = "192.0.2.33".to_owned();
        for form in [
            "64:ff9b::192.0.2.33",
            "64:ff9b:1::192.0.2.33",
            "64:ff9b:1:abcd:ef01:2345:192.0.2.33",
            "64:ff9b:1:c000:2:2100::",
            "64:ff9b:1:abc0:0:221::",
            "64:ff9b:1:abcd:c0:2:2100:0",
        ] {
            let hosts = behind(form);
            assert!(hosts.contains(&host), "{form}: {hosts:?}");
        }
    }

    #[test]
    fn a_prefix_is_the_ipv4_prefix_or_all() {
        assert_eq!(behind("64:ff9b::192.0.2.0/120"), ["192.0.2.0/24"]);
        assert_eq!(behind("64:ff9b:1::192.0.2.0/120"), ["192.0.2.0/24"]);
        for wide in [
            "64:ff9b::/64",
            "64:ff9b::/32",
            "64:ff9b:1::/48",
            "64:ff9b:1:2::/64",
        ] {
            assert_eq!(behind(wide), ["0.0.0.0/0"], "{wide}");
        }
        assert_eq!(behind("64:ff9b::/96"), ["0.0.0.0/0"]);
        for other in [
            "192.0.2.1",
            "192.0.2.0/24",
            "2001:db8::1",
            "64:ff9b:2::1",
            "64:ff9b:0:1::/64",
            "64:ff9b:0:0:0:1::/96",
            "2001:db8::/32",
            "64::/16",
            "::/0",
        ] {
            assert!(behind(other).is_empty(), "{other}");
        }
    }
}
