//! Bans as sorted ranges of addresses that neither overlap nor touch.

use std::net::IpAddr;

use crate::address::Subnet;

/// First and last address, as numbers.
pub type Range<T> = (T, T);

/// The ranges of each family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// Of IPv4 addresses.
    pub v4: Vec<Range<u32>>,
    /// Of IPv6 addresses.
    pub v6: Vec<Range<u128>>,
}

impl Ranges {
    /// All addresses of `subnets`. It is fast if they come in the order of their addresses.
    pub fn of<'a>(subnets: impl IntoIterator<Item = &'a Subnet>) -> Self {
        let subnets = subnets.into_iter();
        // First and last address in one number, which sorts faster than two.
        let mut v4: Vec<u64> = Vec::with_capacity(subnets.size_hint().1.unwrap_or(0));
        let mut v6: Vec<Range<u128>> = Vec::new();
        for subnet in subnets {
            let prefix = u32::from(subnet.prefix_len());
            match subnet.address() {
                IpAddr::V4(ip) => {
                    let first = u64::from(ip.to_bits());
                    v4.push(first << 32 | first | ones(32 - prefix) as u64);
                }
                IpAddr::V6(ip) => {
                    let first = ip.to_bits();
                    v6.push((first, first | ones(128 - prefix)));
                }
            }
        }
        v4.sort_unstable();
        v6.sort_unstable();
        let range = |both: u64| ((both >> 32) as u32, both as u32);
        Ranges {
            v4: merged(v4.into_iter().map(range), |last| last.saturating_add(1)),
            v6: merged(v6.into_iter(), |last| last.saturating_add(1)),
        }
    }
}

/// A number of so many one bits, 128 at most.
pub fn ones(bits: u32) -> u128 {
    1u128.checked_shl(bits).unwrap_or(0).wrapping_sub(1)
}

/// The same addresses in as few ranges as there can be. `ranges` are sorted.
fn merged<T: Copy + Ord>(
    ranges: impl ExactSizeIterator<Item = Range<T>>,
    after: impl Fn(T) -> T,
) -> Vec<Range<T>> {
    let mut merged: Vec<Range<T>> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= after(before.1) => before.1 = before.1.max(last),
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
