//! Prefixes of many lengths as disjoint ranges, for one interval set.
//!
//! The kernel's interval sets take no overlapping elements, and each element has one timeout. So nested
//! prefixes are cut into pieces, each of which ends when the last prefix over it ends.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::address::Subnet;

/// The prefixes that live in the interval sets, and when each ban ends.
#[derive(Debug, Default)]
pub struct Ranges(BTreeMap<Subnet, Instant>);

/// Addresses next to each other that are banned until the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First address as a number; IPv4 uses the low 32 bits.
    pub first: u128,
    /// Last address.
    pub last: u128,
    /// When the ban ends.
    pub end: Instant,
}

impl Ranges {
    /// Bans a prefix until `seconds_left` from now, or exactly until then if it was there.
    pub fn insert(&mut self, subnet: Subnet, seconds_left: u32) {
        let end = Instant::now().checked_add(Duration::from_secs(seconds_left.into()));
        if let Some(end) = end {
            self.0.insert(subnet, end);
        }
    }

    /// Lifts the ban of a prefix; true if it was there.
    pub fn remove(&mut self, subnet: &Subnet) -> bool {
        self.0.remove(subnet).is_some()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The ranges of a family, in order; forgets what has ended by `now`.
    pub fn of(&mut self, v4: bool, now: Instant) -> Vec<Range> {
        self.0.retain(|_, end| *end > now);
        let prefixes = self.0.iter().filter(|(subnet, _)| subnet.is_v4() == v4);
        merge(prefixes.map(|(subnet, end)| {
            let (first, bits) = match subnet.address() {
                IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
                IpAddr::V6(ip) => (ip.to_bits(), 128),
            };
            let free = bits - u32::from(subnet.prefix_len());
            let size = 1u128.checked_shl(free).map_or(u128::MAX, |size| size - 1);
            Range {
                first,
                last: first | size,
                end: *end,
            }
        }))
    }
}

/// Cuts ranges, of which any two are nested or apart, into disjoint ones.
fn merge(ranges: impl Iterator<Item = Range>) -> Vec<Range> {
    let mut sorted: Vec<Range> = ranges.collect();
    sorted.sort_by_key(|range| (range.first, u128::MAX - range.last));
    let mut cut = Pieces::default();
    // Ranges that are open at the current address, the innermost last; each ends later than those outside.
    let mut open: Vec<Range> = Vec::new();
    for range in sorted {
        while let Some(inner) = open.last().filter(|inner| inner.last < range.first) {
            cut.push(*inner, inner.last);
            open.pop();
        }
        if let Some(outer) = open.last() {
            if range.end <= outer.end {
                continue;
            }
            if let Some(before) = range.first.checked_sub(1) {
                cut.push(*outer, before);
            }
        }
        open.push(range);
    }
    while let Some(inner) = open.pop() {
        cut.push(inner, inner.last);
    }
    cut.done
}

/// Pieces in order of their addresses.
#[derive(Default)]
struct Pieces {
    done: Vec<Range>,
}

impl Pieces {
    /// Adds what is left of `range` up to `last`.
    fn push(&mut self, range: Range, last: u128) {
        let next = match self.done.last() {
            Some(before) => before.last.checked_add(1),
            None => Some(0),
        };
        let Some(first) = next.map(|next| next.max(range.first)) else {
            return;
        };
        if first > last {
            return;
        }
        match self.done.last_mut() {
            Some(before) if before.end == range.end && before.last + 1 == first => {
                before.last = last;
            }
            _ => self.done.push(Range {
                first,
                last,
                end: range.end,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges(list: &[(&str, u32)]) -> Vec<(u128, u128, u64)> {
        let now = Instant::now();
        let mut ranges = Ranges::default();
        for (subnet, seconds) in list {
            let end = now + Duration::from_secs((*seconds).into());
            ranges.0.insert(subnet.parse().unwrap(), end);
        }
        let seconds = |range: &Range| (range.end - now).as_secs();
        let pieces = ranges.of(list[0].0.contains('.'), now);
        pieces
            .iter()
            .map(|range| (range.first, range.last, seconds(range)))
            .collect()
    }

    #[test]
    fn nested_prefixes_are_cut() {
        let net = 0x0a00_0000;
        let cut = ranges(&[("10.0.0.0/16", 10), ("10.0.1.0/24", 60), ("10.0.2.0/24", 5)]);
        assert_eq!(
            cut,
            [
                (net, net + 0xff, 10),
                (net + 0x100, net + 0x1ff, 60),
                (net + 0x200, net + 0xffff, 10)
            ]
        );
        // Neighbours with one end are one range; the whole family and its last address fit.
        let cut = ranges(&[("10.0.0.0/25", 9), ("10.0.0.128/25", 9)]);
        assert_eq!(cut, [(net, net + 0xff, 9)]);
        let cut = ranges(&[("ffff::/16", 9), ("ffff:ffff::/32", 10)]);
        let half = 0xffff_ffffu128 << 96;
        assert_eq!(
            cut,
            [(0xffffu128 << 112, half - 1, 9), (half, u128::MAX, 10)]
        );
    }

    proptest! {
        #[test]
        fn an_address_is_banned_as_long_as_its_longest_prefix(
            list in prop::collection::vec((any::<u8>(), 24u8..=32, 1u32..20), 1..30)
        ) {
            let now = Instant::now();
            let mut ranges = Ranges::default();
            for (host, length, seconds) in list {
                let subnet = Subnet::new(IpAddr::V4([10, 0, 0, host].into()), length);
                let end = now + Duration::from_secs(seconds.into());
                ranges.0.insert(subnet.unwrap(), end);
            }
            let known = ranges.0.clone();
            let cut = ranges.of(true, now);
            prop_assert!(cut.windows(2).all(|two| two[0].last < two[1].first));
            for host in 0..=255u8 {
                let ip = IpAddr::V4([10, 0, 0, host].into());
                let wanted = known.iter().filter(|(net, _)| net.contains(ip)).map(|(_, end)| *end).max();
                let number = 0x0a00_0000 + u128::from(host);
                let found = cut.iter().find(|piece| (piece.first..=piece.last).contains(&number));
                prop_assert_eq!(found.map(|piece| piece.end), wanted);
            }
        }
    }
}
