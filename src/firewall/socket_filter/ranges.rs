//! Bans as sorted ranges of addresses that neither overlap nor touch.

use std::net::IpAddr;

use crate::address::Subnet;

/// First and last address, as numbers.
pub type Range = (u128, u128);

/// The ranges of each family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// Of IPv4 addresses, below 2^32.
    pub v4: Vec<Range>,
    /// Of IPv6 addresses.
    pub v6: Vec<Range>,
}

impl Ranges {
    /// All addresses of `subnets`.
    pub fn of(subnets: &[Subnet]) -> Self {
        let mut ranges = Ranges::default();
        for subnet in subnets {
            let (first, bits) = match subnet.address() {
                IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
                IpAddr::V6(ip) => (ip.to_bits(), 128),
            };
            let range = (first, first | ones(bits - u32::from(subnet.prefix_len())));
            match bits {
                32 => ranges.v4.push(range),
                _ => ranges.v6.push(range),
            }
        }
        ranges.v4 = merged(ranges.v4);
        ranges.v6 = merged(ranges.v6);
        ranges
    }
}

/// A number of so many one bits, 128 at most.
pub fn ones(bits: u32) -> u128 {
    1u128.checked_shl(bits).unwrap_or(0).wrapping_sub(1)
}

/// The same addresses in as few ranges as there can be, sorted.
fn merged(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_or_touches_becomes_one() {
        let subnets: Vec<Subnet> = [
            "255.255.255.255",
            "10.0.0.0/24",
            "10.0.0.7",
            "10.0.1.0/24",
            "10.0.3.0",
            "2001:db8::/64",
            "2001:db8:0:1::/64",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ]
        .map(|text| text.parse().unwrap())
        .to_vec();
        let ranges = Ranges::of(&subnets);
        assert_eq!(
            ranges.v4,
            [
                (0x0a00_0000, 0x0a00_01ff),
                (0x0a00_0300, 0x0a00_0300),
                (0xffff_ffff, 0xffff_ffff)
            ]
        );
        let first = 0x2001_0db8 << 96;
        assert_eq!(
            ranges.v6,
            [(first, first | ones(65)), (u128::MAX, u128::MAX)]
        );
        assert_eq!(ones(0), 0);
        assert_eq!(ones(128), u128::MAX);
    }
}
