//! Addresses and prefixes once more, naively: what the clever code is compared with.

use std::net::IpAddr;

/// The first and the last address of a network, on a line where IPv4 lies at `::ffff:0:0/96`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub first: u128,
    pub last: u128,
    pub v4: bool,
}

impl Range {
    pub fn host(ip: IpAddr) -> Range {
        let v4 = ip.to_canonical().is_ipv4();
        let bits = bits(ip);
        Range {
            first: bits,
            last: bits,
            v4,
        }
    }

    pub fn of(subnet: apiban::address::Subnet) -> Range {
        parse(&subnet.to_string()).expect("what is printed can be read")
    }

    pub fn covers(&self, ip: IpAddr) -> bool {
        self.v4 == ip.to_canonical().is_ipv4() && (self.first..=self.last).contains(&bits(ip))
    }

    pub fn overlaps(&self, other: &Range) -> bool {
        self.v4 == other.v4 && self.first <= other.last && other.first <= self.last
    }
}

pub fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// An address (IPv6 also in brackets), or `ADDRESS/LENGTH`.
pub fn parse(text: &str) -> Option<Range> {
    let Some((address, length)) = text.split_once('/') else {
        let inner = match text.as_bytes() {
            [b'[', .., b']'] => &text[1..text.len() - 1],
            _ => text,
        };
        return Some(Range::host(inner.parse().ok()?));
    };
    let ip: IpAddr = address.parse().ok()?;
    // The only spelling of a number.
    let number: u32 = length.parse().ok()?;
    let length = (number <= 128 && number.to_string() == length).then_some(number)?;
    let v4 = ip.is_ipv4() || (ip.to_canonical().is_ipv4() && length >= 96);
    let length = if ip.is_ipv4() {
        96 + (length <= 32).then_some(length)?
    } else {
        length
    };
    let host_bits = u128::MAX.checked_shr(length).unwrap_or(0);
    let first = bits(ip) & !host_bits;
    Some(Range {
        first,
        last: first | host_bits,
        v4,
    })
}

/// Whether no list may ever ban it: too wide, or not a source that packets have.
pub fn unbannable(range: &Range) -> bool {
    let width = (range.last - range.first).count_ones();
    let special = |text: &str| parse(text).is_some_and(|net| net.overlaps(range));
    if range.v4 {
        let blocks = ["0.0.0.0/8", "224.0.0.0/4", "169.254.0.0/16"];
        width > 16
            || range.last == bits([255; 4].into()) && width == 0
            || blocks.into_iter().any(special)
    } else {
        width > 96 || ["ff00::/8", "fe80::/10", "::"].into_iter().any(special)
    }
}
