//! What can be banned: one address or one prefix, in one canonical form.
//!
//! `::ffff:a.b.c.d` is the IPv4 address `a.b.c.d` everywhere, and a prefix has no host bits.

pub mod nat64;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use crate::quote::foreign;

/// Shortest IPv4 prefix that may be banned: a wider one is taken for a mistake or a poisoned list.
pub const MIN_V4_PREFIX: u8 = 16;
/// Longest text that an error quotes, in characters.
const MAX_QUOTE: usize = 64;
/// Shortest IPv6 prefix that may be banned.
pub const MIN_V6_PREFIX: u8 = 32;

/// An address (full prefix length) or a prefix, without host bits, IPv4-mapped IPv6 folded to IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet(IpNet);

/// The text is neither an address nor a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an IP address or prefix")]
pub struct ParseError(String);

/// Parses an address as it stands in SIP and in configurations: IPv6 with or without brackets.
pub fn parse_address(text: &str) -> Result<IpAddr, ParseError> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse::<IpAddr>()
        .map(|ip| ip.to_canonical())
        .map_err(|_| ParseError(shortened(text)))
}

/// What an error quotes of the text.
fn shortened(text: &str) -> String {
    foreign(text, MAX_QUOTE).to_string()
}

impl Subnet {
    /// The address `ip` alone.
    pub fn host(ip: IpAddr) -> Self {
        Subnet(IpNet::from(ip.to_canonical()))
    }

    /// The network of `length` bits that holds `ip`; `None` if the length is too long for the family.
    pub fn new(ip: IpAddr, length: u8) -> Option<Self> {
        let (ip, length) = match (ip, ip.to_canonical()) {
            // A mapped prefix of 96 bits or more is an IPv4 prefix in disguise.
            (IpAddr::V6(_), v4 @ IpAddr::V4(_)) if (96..=128).contains(&length) => {
                (v4, length - 96)
            }
            _ => (ip, length),
        };
        IpNet::new(ip, length).ok().map(|net| Subnet(net.trunc()))
    }

    /// First address of the network.
    pub fn address(&self) -> IpAddr {
        self.0.network()
    }

    /// Prefix length in bits, 0 to 32 or 0 to 128.
    pub fn prefix_len(&self) -> u8 {
        self.0.prefix_len()
    }

    /// True if exactly one address is meant.
    pub fn is_host(&self) -> bool {
        self.0.prefix_len() == self.0.max_prefix_len()
    }

    /// True for IPv4.
    pub fn is_v4(&self) -> bool {
        matches!(self.0, IpNet::V4(_))
    }

    /// True if `ip` lies in this network.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }

    /// True if every address of `other` lies in this network, or the reverse.
    pub fn overlaps(&self, other: &Subnet) -> bool {
        self.0.contains(&other.0) || other.0.contains(&self.0)
    }

    /// True if the prefix is wider than anything this module agrees to ban.
    pub fn is_too_wide(&self) -> bool {
        let shortest = if self.is_v4() {
            MIN_V4_PREFIX
        } else {
            MIN_V6_PREFIX
        };
        self.prefix_len() < shortest
    }

    /// The reason why no list may ever ban this, or `None` if it may: see RFC 6890 for the blocks.
    ///
    /// Loopback is not among them: it is trusted by `trust_self`, and an operator who turns that off
    /// means it.
    pub fn never_bannable(&self) -> Option<&'static str> {
        if self.is_too_wide() {
            return Some("prefix too wide");
        }
        match self.address() {
            IpAddr::V4(ip) => v4_special(ip),
            IpAddr::V6(ip) => v6_special(ip),
        }
    }
}

fn v4_special(ip: Ipv4Addr) -> Option<&'static str> {
    if ip.octets()[0] == 0 {
        Some("unspecified")
    } else if ip.is_multicast() {
        Some("multicast")
    } else if ip.is_link_local() {
        Some("link-local")
    } else if ip.is_broadcast() {
        Some("broadcast")
    } else {
        None
    }
}

fn v6_special(ip: Ipv6Addr) -> Option<&'static str> {
    if ip.is_unspecified() {
        Some("unspecified")
    } else if ip.is_multicast() {
        Some("multicast")
    } else if ip.is_unicast_link_local() {
        Some("link-local")
    } else {
        None
    }
}

impl FromStr for Subnet {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let Some((address, length)) = text.split_once('/') else {
            return parse_address(text).map(Subnet::host);
        };
        let ip = address
            .parse::<IpAddr>()
            .map_err(|_| ParseError(shortened(text)))?;
        // Digits only: "+24" and "024" are mistakes, not lengths.
        let plain = !length.is_empty()
            && length.len() <= 3
            && length.bytes().all(|b| b.is_ascii_digit())
            && (length == "0" || !length.starts_with('0'));
        length
            .parse::<u8>()
            .ok()
            .filter(|_| plain)
            .and_then(|length| Subnet::new(ip, length))
            .ok_or_else(|| ParseError(shortened(text)))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() {
            self.address().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn one_form_for_every_spelling() {
        assert_eq!(subnet("::ffff:192.0.2.7"), subnet("192.0.2.7"));
        assert_eq!(subnet("[2001:db8::1]"), subnet("2001:db8:0::1"));
        assert_eq!(subnet("192.0.2.7/24").to_string(), "192.0.2.0/24");
        assert_eq!(subnet("192.0.2.7/32").to_string(), "192.0.2.7");
        assert_eq!(subnet("::ffff:192.0.2.0/120").to_string(), "192.0.2.0/24");
        assert_eq!(subnet("2001:db8::5/64").to_string(), "2001:db8::/64");
    }

    #[test]
    fn nonsense_is_refused_and_quoted_briefly() {
        for bad in [
            "",
            "1.2.3",
            "1.2.3.4/33",
            "1.2.3.4/+8",
            "1.2.3.4/08",
            "::1/129",
            "a",
            "1.2.3.4/",
            "01.2.3.4",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
        let error = format!("{}\n", "x".repeat(500))
            .parse::<Subnet>()
            .unwrap_err();
        assert!(error.to_string().len() < 120);
    }

    #[test]
    fn no_list_may_ban_these() {
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "169.254.1.1",
            "255.255.255.255",
            "::",
            "ff02::1",
            "fe80::1",
            "10.0.0.0/8",
            "2001::/16",
        ] {
            assert!(subnet(bad).never_bannable().is_some(), "{bad}");
        }
        for good in [
            "192.0.2.1",
            "10.1.2.3",
            "198.51.100.0/24",
            "2001:db8::1",
            "2001:db8::/32",
        ] {
            assert_eq!(subnet(good).never_bannable(), None, "{good}");
        }
    }
}
